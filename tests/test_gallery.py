"""The gallery command: everything is written once, kept, listed, and failures are told."""

import html.parser
import json
import urllib.parse
import warnings

import keras
import numpy as np
import pytest
from PIL import Image
from sampled import rest_slow

import kvis2
from kvis2 import images
from kvis2.__main__ import main
from kvis2.gallery import ARTIFACTS, OF_THE_MODEL, Contents, Made, Piece, evenly, in_file, middles
from kvis2.gallery.page import Entry, Failure, page

pytestmark = pytest.mark.filterwarnings(  # Keras, when a model is saved
    "ignore:__array__ implementation:DeprecationWarning"
)

MAPS = ["Grayscale.png", "Heatmap.png", "On_Image.png"]
PARTS = ["color.png", "gray.png"]
SIGNS = ["pos_sal.png", "neg_sal.png"]

# The pictures of the README of pytorch-cnn-visualizations, with the layers of the model below.
EXPECTED = {
    "photograph": ["photograph.png"],
    "vanilla": [f"Vanilla_BP_{part}" for part in PARTS],
    "guided": [f"Guided_BP_{part}" for part in PARTS + SIGNS],
    "grad_cam": [f"Grad_Cam_{part}" for part in MAPS],
    "score_cam": [f"Score_Cam_{part}" for part in MAPS],
    "guided_grad_cam": [f"GGrad_Cam_{part}" for part in PARTS],
    "integrated_gradients": ["Integrated_G_gray.png"],
    "lrp": ["LRP_pixels.png", "LRP_early.png", "LRP_late.png"],
    "layer_cam": [f"Layer_Cam_{layer}_{part}" for layer in ("early", "late") for part in MAPS],
    "gradient_times_image": [
        f"{kind}_grad_times_image_gray.png" for kind in ("Vanilla", "Guided", "Integrated")
    ],
    "smooth_grad": [f"{kind}_SmoothGrad_{p}" for kind in ("Vanilla", "Guided") for p in PARTS],
    "smooth_grad_sweep": [f"{kind}_SmoothGrad_sweep.gif" for kind in ("Vanilla", "Guided")],
    "filter_response": [f"layer_late_filter5_Guided_BP_{part}" for part in PARTS + SIGNS],
    "layer_sweep": ["layer_sweep_filter0.gif"],
    "filter_sweep": ["filter_sweep_late.gif"],
    "inversions": ["Inv_Image_early.png", "Inv_Image_late.png"],
    "deep_dream": ["ddream_late_f2.png", "ddream_late_f6.png"],
    "filter_images": ["filters_early.png", "filters_late.png"],
    "class_images": [
        f"class_2_{name}.{suffix}"
        for name in ("fourier", "no_decay", "L1", "L2", "blur", "regularised")
        for suffix in ("png", "gif")
    ],
}


def saved_at(path, model):
    model.save(path)
    return str(path)


@pytest.fixture
def saved(small_model, tmp_path):
    """The path of a saved model that takes 0..1, 16 x 12 pixels."""
    return saved_at(tmp_path / "small.keras", small_model)


@pytest.fixture
def photograph(images, tmp_path):
    """A picture file, larger than the input and of another shape."""
    path = tmp_path / "a cat.png"
    pixels = (255 * images[0]).astype(np.uint8)
    Image.fromarray(pixels).resize((20, 24), Image.Resampling.NEAREST).save(path)
    return str(path)


@pytest.fixture
def run(saved, photograph, tmp_path, capsys):
    """Runs the command; returns its status, its folder and what it said."""

    def run(*arguments, photographs=(photograph,), model=saved, space="--input-range 0 1"):
        given = [*space.split(), "--class", "2", "--quick", "--steps", "2"]
        status = main(
            ["gallery", model, *photographs, "--out", str(tmp_path / "out"), *given, *arguments]
        )
        return status, tmp_path / "out", capsys.readouterr().out

    return run


class Links(html.parser.HTMLParser):
    """What a page refers to, and its text."""

    def __init__(self, page):
        super().__init__()
        self.links, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.links += [value for key, value in attributes if key in ("src", "href")]

    def handle_data(self, data):
        self.text += data


def files_in(folder):
    pictures = [*folder.rglob("*.png"), *folder.rglob("*.gif")]
    return {path.relative_to(folder).as_posix(): path for path in pictures}


def expected_files(artifacts):
    return {
        f"model/model_{file}" if artifact in OF_THE_MODEL else f"a cat/a cat_{file}"
        for artifact in artifacts
        for file in EXPECTED[artifact]
    }


def test_what_comes_from_names_is_text_on_the_page_and_never_markup():
    wild = "<b onload='x'>&amp; %23 \"quoted\""
    contents = Contents(wild, {wild: wild}, {wild: "photo.png"})
    contents.entries[f"a folder/{wild}.png"] = Entry(wild, "Vanilla_BP", {wild: wild}, {}, [wild])
    contents.failures = [Failure(wild, "Vanilla_BP", wild, wild)]
    text = page(contents, {"Vanilla_BP": wild})
    shown = Links(text)
    assert "<b " not in text
    assert shown.links == [
        f"#{urllib.parse.quote(wild)}",
        *2 * [urllib.parse.quote(f"a folder/{wild}.png")],
    ]
    assert shown.text.count(wild) == 12


@pytest.mark.slow
def test_everything_is_made_listed_and_kept(run):
    assert list(EXPECTED) == list(ARTIFACTS)
    status, folder, _ = run()
    files = files_in(folder)
    assert status == 0
    assert set(files) == expected_files(ARTIFACTS)
    for name, path in files.items():
        with Image.open(path) as picture:
            frames, extrema = getattr(picture, "n_frames", 1), picture.convert("RGB").getextrema()
        assert max(high - low for low, high in extrema) > 0, f"{name} is even"
        assert (frames > 1) == name.endswith(".gif"), name

    page = Links((folder / "index.html").read_text(encoding="utf-8"))
    targets = {urllib.parse.unquote(link) for link in page.links}
    assert targets == set(files) | {"#a cat", "#model"}  # and nothing from elsewhere
    for said in (
        "The gradient by guided backpropagation.",
        "conservation error = ",
        "output = 0.",
        "samples = 4",
        "layer = late",
        "blur every = 2",
    ):
        assert said in page.text

    written = {name: (path.stat().st_mtime_ns, path.read_bytes()) for name, path in files.items()}
    status, _, said = run()
    assert status == 0
    assert said.count("kept") == len(files)
    again = files_in(folder)
    assert {n: (p.stat().st_mtime_ns, p.read_bytes()) for n, p in again.items()} == written


def test_the_pictures_are_those_of_the_explainers(run, small_model, images):
    _, folder, _ = run("--only", "vanilla", "grad_cam", "lrp")
    shown = np.asarray(Image.open(folder / "a cat/a cat_Vanilla_BP_color.png")).astype(int)
    with Image.open(folder.parent / "a cat.png") as file:
        picture = np.asarray(file.resize((12, 16), Image.Resampling.LANCZOS), np.float32)
    batch = picture[None] / 255
    gradient = kvis2.Saliency(small_model, keepdims=True, normalize=False)(2, batch)[0]
    expected = 255 * (gradient - gradient.min()) / np.ptp(gradient)
    assert np.abs(shown + 0.5 - expected).max() < 0.6
    heatmap = kvis2.GradCAM(small_model)(2, batch)[0]
    shown = np.asarray(Image.open(folder / "a cat/a cat_Grad_Cam_On_Image.png")).astype(int)
    assert np.abs(shown - kvis2.images.overlay(picture / 255, heatmap, 0.4, "turbo")).max() <= 1


@pytest.mark.slow
def test_an_interrupted_gallery_is_continued(run, monkeypatch):
    _, folder, _ = run("--only", "vanilla", "guided", "layer_cam")
    files = files_in(folder)
    lost = ["a cat/a cat_Guided_BP_neg_sal.png", "a cat/a cat_Layer_Cam_late_Heatmap.png"]
    before = {name: files[name].read_bytes() for name in lost}
    for name in lost:
        files[name].unlink()
    stamps = {n: p.stat().st_mtime_ns for n, p in files.items() if n not in lost}
    run("--only", "photograph")
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "Guided_BP_pos_sal.png" in page
    assert "Guided_BP_neg_sal.png" not in page  # it is no longer there
    _, _, said = run("--only", "vanilla", "guided", "layer_cam")
    assert said.count("kept") == len(files) - 2
    assert {name: files[name].read_bytes() for name in lost} == before
    assert {name: files[name].stat().st_mtime_ns for name in stamps} == stamps


def test_only_the_overwritten_is_made_again(run):
    _, folder, _ = run("--only", "layer_cam")
    path = folder / "a cat/a cat_Layer_Cam_late_Heatmap.png"
    turbo = path.read_bytes()
    _, _, said = run("--only", "layer_cam", "--colormap", "gray")
    assert "kept, made with label=2, layer=late, colormap=turbo" in said
    assert path.read_bytes() == turbo
    assert "colormap = turbo" in (folder / "index.html").read_text(encoding="utf-8")
    run("--only", "layer_cam", "--colormap", "gray", "--overwrite")
    picture = np.asarray(Image.open(path))
    assert (picture[..., 0] == picture[..., 2]).all()
    assert "colormap = gray" in (folder / "index.html").read_text(encoding="utf-8")


def test_some_are_skipped_and_layers_are_chosen(run):
    names = ["vanilla", "layer_cam", "lrp"]
    _, folder, _ = run("--only", *names, "--skip", "vanilla", "--layers", "early")
    layer_cam = [f"Layer_Cam_early_{part}" for part in MAPS]
    expected = [f"a cat/a cat_{file}" for file in ["LRP_pixels.png", "LRP_early.png", *layer_cam]]
    assert set(files_in(folder)) == set(expected)


def test_a_failure_is_told_and_the_others_go_on(run, monkeypatch):
    def refused():
        raise ValueError("Expected <luck>. Received: none. Try again.")

    def half(subject):
        yield Piece("good.png", lambda: Made(np.eye(8)))
        yield Piece("bad.png", refused)
        yield Piece("late.png", lambda: Made(np.eye(8)))

    def unlisted(subject):
        raise KeyError("no such layer")
        yield

    with monkeypatch.context() as patched:
        patched.setitem(ARTIFACTS, "guided", half)
        patched.setitem(ARTIFACTS, "lrp", unlisted)
        status, folder, said = run("--only", "guided", "lrp", "vanilla")
    assert status == 1
    assert "FAILED: Expected <luck>. Received: none. Try again." in said
    assert "KeyError: 'no such layer'" in said
    names = [*EXPECTED["vanilla"], "good.png", "late.png"]
    assert set(files_in(folder)) == {f"a cat/a cat_{name}" for name in names}
    text = Links((folder / "index.html").read_text(encoding="utf-8")).text
    assert "Expected <luck>. Received: none. Try again." in text
    assert "no such layer" in text

    status, _, _ = run("--only", "guided", "lrp")  # what failed is tried again
    assert status == 0
    assert "luck" not in (folder / "index.html").read_text(encoding="utf-8")


def test_a_model_without_relu_has_no_guided_pictures_and_says_so(run, tmp_path):
    inputs = keras.Input((16, 12, 3))
    x = keras.layers.Conv2D(4, 3, activation="tanh", name="late")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(x))
    path = saved_at(tmp_path / "tanh.keras", model)
    status, folder, said = run("--only", "vanilla", "guided", model=path)
    assert status == 1
    assert "at least one relu or relu6" in said
    assert set(files_in(folder)) == expected_files(["vanilla"])


def test_warnings_are_shown_beside_their_pictures(run, monkeypatch):
    def make():
        warnings.warn("a map is blank", stacklevel=2)
        return Made(np.eye(8))

    monkeypatch.setitem(ARTIFACTS, "vanilla", lambda subject: iter([Piece("eye.png", make)]))
    status, folder, said = run("--only", "vanilla")
    assert status == 0
    assert "a map is blank" in said
    assert "a map is blank" in (folder / "index.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_file_that_was_interrupted_is_not_taken_for_done(run, monkeypatch):
    def broken(path, image):
        path.write_bytes(b"half")
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(images, "save", broken)
        status, folder, _ = run("--only", "vanilla")
    assert status == 1
    assert not (folder / "a cat/a cat_Vanilla_BP_gray.png").exists()
    status, _, _ = run("--only", "vanilla")
    assert status == 0
    assert set(files_in(folder)) == expected_files(["vanilla"])


@pytest.mark.slow
def test_photographs_of_one_name_do_not_overwrite_each_other(run, photograph, tmp_path):
    (tmp_path / "other").mkdir()
    second = tmp_path / "other" / "a cat.png"
    Image.fromarray(np.zeros((20, 20, 4), np.uint8)).save(second)
    for _ in range(2):
        _, folder, _ = run("--only", "photograph", photographs=[photograph, str(second)])
    first = np.asarray(Image.open(folder / "a cat/a cat_photograph.png"))
    other = np.asarray(Image.open(folder / "a cat_2/a cat_2_photograph.png"))
    assert first.any()
    assert not other.any()
    assert len(files_in(folder)) == 2


def png(path):
    Image.fromarray(np.full((20, 20, 3), 90, np.uint8)).save(path, format="png")
    return str(path)


@pytest.mark.slow
def test_nothing_is_written_outside_of_the_folder_whatever_a_picture_is_called(run, tmp_path):
    home = tmp_path / "pictures"
    home.mkdir()
    names = ["..", "index.html", "gallery.json", "MODEL", "con", "\udcff", "é" * 120, ".. "]
    paths = [png(home / f"{name}.png") for name in names]
    before = set(tmp_path.iterdir())
    status, folder, _ = run("--only", "photograph", photographs=paths)
    assert status == 0
    assert set(tmp_path.iterdir()) - before == {folder}
    assert len(files_in(folder)) == len(names)
    sections = {path.name for path in folder.iterdir() if path.is_dir()}
    assert {"_", "__2", "index.html_2", "gallery.json_2", "MODEL_2", "_con"} < sections
    status, _, said = run("--only", "photograph", photographs=paths)
    assert (status, said.count("kept")) == (0, len(names))


@pytest.mark.slow
def test_a_record_from_elsewhere_does_not_lead_out_of_the_folder(run, photograph, tmp_path):
    _, folder, _ = run("--only", "photograph")
    record = json.loads((folder / "gallery.json").read_text())
    record["sources"] = {"../gone": record["sources"]["a cat"]}
    (folder / "gallery.json").write_text(json.dumps(record))
    run("--only", "photograph")
    assert not (tmp_path / "gone").exists()
    assert Contents.load(folder / "gallery.json").sources == {"a cat": photograph}


@pytest.mark.slow
def test_one_picture_that_cannot_be_read_does_not_end_the_others(run, photograph, tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    bad = [str(tmp_path / "empty.png"), str(tmp_path / "folder.png")]
    status, folder, said = run("--only", "photograph", photographs=[bad[0], photograph, bad[1]])
    assert status == 1
    assert set(files_in(folder)) == expected_files(["photograph"])
    end = said.partition("2 of 3 pictures could not be read:")[2]
    assert f"{bad[0]}, which is empty" in end
    assert f"{bad[1]}, which is a folder" in end


@pytest.mark.slow
def test_layers_whose_files_have_one_name_are_kept_apart(run, monkeypatch):
    def both(subject):
        yield Piece(f"{in_file('a/b')}.png", lambda: Made(np.zeros((4, 4))))
        yield Piece(f"{in_file('a-b')}.png", lambda: Made(np.ones((4, 4))))

    monkeypatch.setitem(ARTIFACTS, "vanilla", both)
    for _ in range(2):
        _, folder, _ = run("--only", "vanilla")
    assert set(files_in(folder)) == {"a cat/a cat_a-b.png", "a cat/a cat_a-b_2.png"}
    assert np.asarray(Image.open(folder / "a cat/a cat_a-b_2.png")).all()


def with_code(path):
    inputs = keras.Input((16, 12, 3))
    x = keras.layers.Lambda(lambda x: 2 * x)(keras.layers.Conv2D(4, 3, activation="relu")(inputs))
    x = keras.layers.GlobalAveragePooling2D()(x)
    keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(x)).save(path)
    return str(path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_code_in_a_model_is_run_if_it_is_trusted_alone(run, tmp_path, suffix, capsys, monkeypatch):
    path = with_code(tmp_path / f"code.{suffix}")
    with monkeypatch.context() as patched:
        if suffix == "h5":  # as the oldest Keras, which has no safe mode here
            load = keras.saving.load_model
            patched.setattr(
                keras.saving, "load_model", lambda *a, safe_mode, **k: load(*a, safe_mode=False)
            )
        with pytest.raises(SystemExit) as stopped:
            run("--only", "photograph", model=path)
    assert stopped.value.code == 2
    assert "--trust" in capsys.readouterr().err
    status, _, _ = run("--only", "photograph", "--trust", model=path)
    assert status == 0


@pytest.mark.slow
def test_a_folder_holds_one_model(run, saved, tmp_path, capsys):
    run("--only", "photograph")
    other = tmp_path / "other.keras"
    other.write_bytes((tmp_path / "small.keras").read_bytes())
    with pytest.raises(SystemExit):
        run("--only", "photograph", model=str(other))
    assert "holds one of" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no.keras", "--out", "x"], "path that exists, or a name such as VGG16"),
        (["{saved}", "no.png", "--out", "x"], "Expected a picture file. Received: no.png"),
        (["{saved}", "text.h5", "--out", "x"], "no picture that Pillow knows"),
        (["text.h5", "{photograph}", "--out", "x"], "file with a model. Received: 'text.h5'"),
        (["text.keras", "{photograph}", "--out", "x"], "a model. Received: 'text.keras'"),
        (["{saved}", "{photograph}", "--out", "text.h5"], "--out text.h5, which is a file"),
        (["{saved}", "{photograph}", "--out", "x", "--class", "9"], "class from 0 to 3"),
        (["{saved}", "--out", "x", "--preprocess", "vgg99"], "module of keras.applications"),
        (["{saved}", "--out", "x", "--input-range", "1", "1"], "black and white to differ"),
        (["{saved}", "--out", "x", "--only", "magic"], "invalid choice"),
        (["{saved}", "--out", "x", "--names", "imagenet"], "a name for each of 4 classes"),
        (["{saved}", "--out", "x", "--names", "no.txt"], "'imagenet' or a text file of names"),
    ],
)
def test_mistakes_are_answered_in_a_sentence(
    arguments, message, saved, photograph, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    for name in ("text.h5", "text.keras"):
        (tmp_path / name).write_text("no model")
    given = [each.format(saved=saved, photograph=photograph) for each in arguments]
    with pytest.raises(SystemExit) as stopped:
        main(["gallery", *given])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x" / "index.html").exists()


@pytest.mark.slow
def test_classes_have_their_names(run, tmp_path):
    (tmp_path / "names.txt").write_text("cat\ndog\ncow\nhen\n")
    _, folder, _ = run("--only", "photograph", "--names", str(tmp_path / "names.txt"))
    assert "a cat.png: class 2 cow, output 0." in Links((folder / "index.html").read_text()).text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dead", "shown", "found"), rest_slow([([4], [3], []), (range(8), [4], [4])])
)
def test_filters_that_nothing_excites_are_left_out_or_told(
    run, small_model, tmp_path, dead, shown, found
):
    late = small_model.get_layer("late")
    kernel, bias = late.get_weights()
    kernel[..., list(dead)] *= 0 if len(dead) > 1 else 1e-9
    late.set_weights([kernel, bias])
    path = saved_at(tmp_path / "dead.keras", small_model)
    run("--only", "filter_images", "--layers", "early", "late", model=path, photographs=[])
    entries = Contents.load(tmp_path / "out/gallery.json").entries
    sheet = entries["model/model_filters_late.png"]
    assert sheet.parameters["filters"] == shown
    assert sheet.findings == ({"filters that nothing excites": found} if found else {})
    assert entries["model/model_filters_early.png"].findings == {}


@pytest.mark.slow
def test_the_model_alone_needs_no_photograph(run):
    _, folder, _ = run("--only", "filter_images", "--layers", "early", photographs=[])
    assert set(files_in(folder)) == {"model/model_filters_early.png"}


@pytest.mark.slow
def test_the_settings_of_the_original(run):
    status, folder, _ = run(
        *("--recipe", "original", "--only", "filter_images", "inversions", "deep_dream", "lrp")
    )
    assert status == 0
    entries = Contents.load(folder / "gallery.json").entries
    assert entries["a cat/a cat_LRP_pixels.png"].parameters["composite"] == "GammaEverywhere"
    assert entries["a cat/a cat_Inv_Image_late.png"].parameters["recipe"] == "original"
    assert entries["a cat/a cat_Inv_Image_late.png"].findings["error"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["kvis2", "original"])
def test_a_model_that_takes_blue_first(run, recipe):
    made = ["photograph", "integrated_gradients", "inversions", "deep_dream", "class_images"]
    status, folder, said = run("--recipe", recipe, "--only", *made, space="--preprocess vgg16")
    assert status == 0, said
    by_kvis2 = {f"model/model_class_2_fourier.{suffix}" for suffix in ("png", "gif")}
    expected = expected_files(made) - (by_kvis2 if recipe == "original" else set())
    assert set(files_in(folder)) == expected
    seen = np.asarray(Image.open(folder / "a cat/a cat_photograph.png")).astype(int)
    dream = np.asarray(Image.open(folder / "a cat/a cat_ddream_late_f2.png")).astype(int)
    # After two small steps the dream still has the colours of the photograph, red first.
    assert np.abs(dream - seen).mean() < np.abs(dream[..., ::-1] - seen).mean()


@pytest.mark.slow
def test_a_grey_model_that_takes_a_list(run, tmp_path):
    inputs = keras.Input((16, 12, 1))
    x = keras.layers.Conv2D(6, 3, activation="relu", name="early")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model([inputs], keras.layers.Dense(3, activation="softmax")(x))
    path = saved_at(tmp_path / "grey.keras", model)
    status, folder, said = run(
        *("--recipe", "original"),
        *("--only", "vanilla", "grad_cam", "inversions", "deep_dream", "class_images"),
        model=path,
    )
    assert status == 0, said
    assert len(files_in(folder)) == 2 + 3 + 1 + 2 + 10  # no Fourier image in the original


@pytest.mark.slow
def test_an_application_with_random_weights(photograph, tmp_path, capsys):
    status = main(
        [
            *("gallery", "MobileNetV2", photograph, "--out", str(tmp_path / "out")),
            *("--random-weights", "--only", "photograph"),
        ]
    )
    assert status == 0
    shown = np.asarray(Image.open(tmp_path / "out/a cat/a cat_photograph.png"))
    assert shown.shape == (224, 224, 3)
    record = json.loads((tmp_path / "out/gallery.json").read_text())
    assert record["model"] == "MobileNetV2"


@pytest.mark.slow
def test_what_is_spread_evenly():
    assert evenly("abcdefg", 4) == ["a", "c", "e", "g"]
    assert evenly("abc", 9) == ["a", "b", "c"]
    assert evenly("abc", 1) == ["a"]
    assert middles(8, 2) == [2, 6]
    assert middles(2, 4) == [0, 1]
    assert in_file("backbone/conv") == "backbone-conv"
