"""Picture files: what is read of every kind of them, their names, and that they are whole."""

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from kvis2.images import comparable, file_name, read, save, save_gif, written_aside

LEFT_AND_RIGHT = np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8)  # red left of blue


def written(path, picture, **options):
    Image.fromarray(picture).save(path, **options)
    return path


def ramp(top, dtype=np.uint16):
    return np.linspace(0, top, 64 * 64).reshape(64, 64).astype(dtype)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize(
    ("top", "full"), [(4095, 4095), (65535, 65535), (60000, 65535), (200, 255)]
)
def test_more_than_8_bits_are_read_on_the_scale_of_the_bits_they_use(tmp_path, suffix, top, full):
    values = ramp(top)
    shown = read(written(tmp_path / f"scan.{suffix}", values))
    np.testing.assert_array_equal(shown[..., 0], np.rint(255 * (values / full)).astype(np.uint8))
    np.testing.assert_array_equal(shown[..., 0], shown[..., 2])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (ramp(1.0, np.float32), lambda x: 255 * x),
        (ramp(255.0, np.float32), lambda x: x),
        (ramp(3000.0, np.float32), lambda x: 255 * x / 3000),
        (ramp(1.0, np.float32) - 0.5, lambda x: 255 * (x + 0.5)),
        (ramp(2000, np.int32) - 1000, lambda x: 255 * (x + 1000) / 2000),
        (np.full((3, 4), 7.5e4, np.float32), lambda x: 0 * x),
    ],
    ids=["unit", "bytes", "any", "signed", "hounsfield", "even"],
)
def test_floating_point_and_signed_numbers(tmp_path, values, expected):
    shown = read(written(tmp_path / "field.tif", values), channels=1)
    np.testing.assert_allclose(shown[..., 0], expected(values.astype(np.float64)), atol=0.5001)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_upright(tmp_path, orientation, suffix):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16], upright[:8, 16:], upright[8:, :16] = (240, 0, 0), (0, 240, 0), (0, 0, 240)
    # How a camera stores it: what EXIF says it has to be undone with, undone.
    stored = {
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.transpose(1, 0, 2),
        6: lambda x: np.rot90(x),
        7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
        8: lambda x: np.rot90(x, -1),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95, "subsampling": 0} if suffix == "jpg" else {}
    if suffix == "webp":
        options = {"lossless": True}
    path = tmp_path / f"portrait.{suffix}"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, **options)
    np.testing.assert_allclose(read(path).astype(int), upright, atol=12 if suffix == "jpg" else 0)


@pytest.mark.parametrize(
    ("mode", "suffix", "tolerance"),
    [("P", "png", 0), ("RGBA", "png", 0), ("CMYK", "tif", 0), ("CMYK", "jpg", 40)],
)
def test_every_mode_becomes_its_colours(tmp_path, mode, suffix, tolerance):
    path = tmp_path / f"picture.{suffix}"
    picture = Image.fromarray(LEFT_AND_RIGHT.repeat(16, 0).repeat(16, 1)).convert(mode)
    picture.save(path)
    shown = read(path).astype(int)
    np.testing.assert_allclose(shown[:, :8], np.full((16, 8, 3), (255, 0, 0)), atol=tolerance)
    np.testing.assert_allclose(shown[:, -8:], np.full((16, 8, 3), (0, 0, 255)), atol=tolerance)


def test_transparency_is_dropped(tmp_path):
    clear = np.array([[[200, 100, 50, 0], [10, 20, 30, 128]]], np.uint8)
    np.testing.assert_array_equal(read(written(tmp_path / "a.png", clear)), clear[..., :3])
    grey = np.array([[[200, 0], [10, 128]]], np.uint8)
    shown = read(written(tmp_path / "b.png", grey), channels=1)
    np.testing.assert_array_equal(shown[..., 0], grey[..., 0])
    palette = Image.fromarray(clear[..., :3]).quantize(2)
    palette.save(tmp_path / "c.png", transparency=bytes([0, 128]))
    np.testing.assert_array_equal(read(tmp_path / "c.png"), np.asarray(palette.convert("RGB")))


def test_one_bit_and_the_first_of_several_frames(tmp_path):
    bits = np.array([[True, False, True]])
    np.testing.assert_array_equal(
        read(written(tmp_path / "bits.png", bits), channels=1)[..., 0], [[255, 0, 255]]
    )
    frames = [Image.fromarray(np.full((4, 4), level, np.uint8)) for level in (30, 90)]
    frames[0].save(tmp_path / "frames.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read(tmp_path / "frames.gif"), np.full((4, 4, 3), 30))


def test_the_size_asked_for_is_that_of_the_upright_picture(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (9, 7, 3)).astype(np.uint8)
    expected = Image.fromarray(picture).resize((5, 8), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(read(written(tmp_path / "a.png", picture), (8, 5)), expected)


def deep_png(path, values):
    """A PNG of 16-bit colours, which Pillow reads and does not write."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind, content):
        crc = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def test_colours_of_16_bits(tmp_path):
    values = np.random.default_rng(0).integers(0, 65536, (4, 5, 3))
    shown = read(deep_png(tmp_path / "deep.png", values)).astype(int)
    assert np.abs(shown - values / 257).max() <= 1
    with pytest.raises(ValueError, match="16 bits that use 12 or fewer"):
        read(deep_png(tmp_path / "dark.png", values // 16))


def no_pictures(folder):
    good = written(folder / "good.png", np.arange(90 * 90, dtype=np.uint16).reshape(90, 90) % 251)
    (folder / "cut.png").write_bytes(good.read_bytes()[:-60])
    (folder / "head.png").write_bytes(good.read_bytes()[:30])
    (folder / "empty.png").write_bytes(b"")
    (folder / "drawing.svg").write_text('<?xml version="1.0"?><svg/>')
    (folder / "text.jpg").write_text("no picture")
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    Image.new("1", (20000, 20000)).save(folder / "bomb.png")
    written(folder / "nan.tif", np.array([[np.nan, 1.0]], np.float32))
    return {
        "cut.png": "damaged",
        "head.png": "no picture that Pillow knows",
        "empty.png": "empty",
        "drawing.svg": "a drawing (SVG)",
        "text.jpg": "no picture that Pillow knows",
        "folder.png": "a folder",
        "pipe.png": "no regular file",
        "bomb.png": "too large",
        "nan.tif": "NaN or infinity",
        "gone.png": "not there",
    }


def test_what_is_no_picture_gets_one_sentence(tmp_path):
    for name, why in no_pictures(tmp_path).items():
        with pytest.raises(ValueError, match=r"^Expected a picture file\. Received: ") as caught:
            read(tmp_path / name)
        assert why in str(caught.value), name
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("..", "_"),
        ("/etc/passwd", "_etc_passwd"),
        (r"C:\x", "C__x"),
        ("a\0b\ud800", "a_b_"),
        ("nul", "_nul"),
        ("Com1.png", "_Com1.png"),
        ("console", "console"),
        ("猫 قطة", "猫 قطة"),
        (" .hidden. ", "hidden"),
    ],
)
def test_names_stay_in_their_folder_and_suit_every_system(text, name):
    assert file_name(text) == name


def test_long_names_are_cut_between_letters_and_stay_apart():
    names = [file_name("é" * 300 + end, ".png") for end in "ab"]
    assert len(set(names)) == 2
    assert all(len(name.encode()) <= 200 and name.endswith(".png") for name in names)
    assert names[0].startswith("é" * 90)


def test_names_that_are_taken_are_numbered_whatever_their_case_and_accents():
    taken = set()
    for text, expected in [("a/b", "a_b.gif"), ("A?b", "A_b_2.gif"), ("a:b", "a_b_3.gif")]:
        name = file_name(text, ".gif", taken=taken)
        taken.add(comparable(name))
        assert name == expected
    assert comparable("e\u0301") == comparable("É")


@pytest.mark.parametrize("write", [save, lambda path, image: save_gif(path, [image])])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, write):
    path = tmp_path / "picture.gif"
    write(path, np.zeros((4, 4)))
    before = path.read_bytes()

    def half(self, target, *arguments, **options):
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(OSError, match="disk full"):
        write(path, np.ones((4, 4)))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_written_aside_is_seen_when_it_is_complete(tmp_path):
    with written_aside(tmp_path / "new" / "notes.txt") as part:
        part.write_text("all")
        assert not (tmp_path / "new" / "notes.txt").exists()
    assert [each.name for each in (tmp_path / "new").iterdir()] == ["notes.txt"]
