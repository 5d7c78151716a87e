"""The page of a data set: what it says is what was found, and it stays usable with many rows."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

import kvis2
from kvis2 import metrics
from kvis2.__main__ import main
from kvis2.dataset import explain_dataset, read, report
from kvis2.gallery import InputSpace

UNIT = InputSpace((0.0,) * 3, (1.0,) * 3)
NAMES = ["<b>ant</b>", "bee", "cat & dog", "d"]


@pytest.fixture
def photos(tmp_path):
    """Ten pictures in four class folders, one of them broken and with a name that is markup."""
    random = np.random.default_rng(2)
    for number in range(10):
        path = tmp_path / "photos" / str(number % 4) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (16, 12, 3), np.uint8)).save(path)
    (tmp_path / "photos" / "1" / "x<img src=y>.png").write_bytes(b"broken")
    return tmp_path / "photos"


def explained(model, photos, out, explainer=None, **options):
    options = {"space": UNIT, "class_names": NAMES, "batch_size": 4, **options}
    explain_dataset(model, photos, explainer, out=out, **options)
    return read(out)


def data_of(page):
    text = page.with_suffix(".js").read_text(encoding="ascii")
    return json.loads(text.removeprefix("window.kvis2Rows = ").removesuffix(";\n"))


def test_the_page_has_the_rows_of_the_table(small_model, photos, tmp_path):
    table = explained(small_model, photos, tmp_path / "out")
    page = report(tmp_path / "out")
    found = data_of(page)
    assert found["id"] == table["id"].tolist()
    assert found["label"] == table["label"].tolist()
    predicted = [None if each < 0 else each for each in table["prediction"].tolist()]
    assert found["prediction"] == predicted
    for shown, value in zip(found["columns"]["complexity"], table["complexity"], strict=True):
        assert shown == (None if np.isnan(value) else pytest.approx(value, abs=1e-4))
    text = page.read_text(encoding="utf-8")
    right = (table["label"] == table["prediction"]).sum()
    assert f"{right} of 10 pictures with a label are predicted right" in text
    for number in range(4):
        inside = (table["label"] == number) & (table["prediction"] >= 0)
        share = (table["prediction"][inside] == number).mean()
        row = re.search(rf'<tr data-class="{number}">(.*?)</tr>', text).group(1)
        assert re.findall(r"<td>(.*?)</td>", row)[1:3] == [
            str((table["label"] == number).sum()),
            f"{100 * share:.1f}%",
        ]


def test_names_and_errors_are_text_and_never_markup(small_model, photos, tmp_path):
    explained(small_model, photos, tmp_path / "out")
    text = report(tmp_path / "out").read_text(encoding="utf-8")
    assert "&lt;b&gt;ant&lt;/b&gt;" in text
    assert "x&lt;img src=y&gt;.png" in text
    assert "<img src=y>" not in text
    assert "<b>ant" not in text


def test_drift_is_that_of_the_maps_of_two_models(small_model, photos, tmp_path):
    first = explained(small_model, photos, tmp_path / "a", kvis2.GradCAM(small_model))
    # Another layer, another grid, and one picture less.
    (photos / "2" / "2.png").unlink()
    second = explained(small_model, photos, tmp_path / "b", kvis2.GradCAM(small_model, "early"))
    assert main(["report", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    found = data_of(tmp_path / "a" / "drift.html")
    assert found["folders"] == ["", "../b/"]
    assert len(found["id"]) == 10
    assert "2/2.png" not in found["id"]
    for name, value in zip(found["id"], found["columns"]["drift"], strict=True):
        here = first["id"].tolist().index(name)
        there = second["id"].tolist().index(name)
        if first["error"][here]:
            assert value is None
            continue
        size = second.map(there, "grid").shape
        known = small_model.input_shape[1:3]
        assert size != known
        maps = [np.asarray(first.kept_map(here).heatmap), second.kept_map(there).heatmap]
        finer = resized(maps[0], maps[1].shape)
        expected = 1 - metrics.spearman(finer[None], maps[1][None])[0]
        assert value == pytest.approx(expected, abs=2e-3)


def resized(heatmap, size):
    """Linear interpolation with half-pixel centres, in slow NumPy."""
    found = np.zeros(size)
    for i, j in np.ndindex(*size):
        y, x = (
            min(max((k + 0.5) * n / m - 0.5, 0), n - 1)
            for k, n, m in zip((i, j), heatmap.shape, size, strict=True)
        )
        for p in range(heatmap.shape[0]):
            for q in range(heatmap.shape[1]):
                weight = max(0, 1 - abs(y - p)) * max(0, 1 - abs(x - q))
                found[i, j] += weight * heatmap[p, q]
    return found


def test_a_folder_without_chunks_and_two_without_a_common_picture_are_refused(
    small_model, photos, tmp_path
):
    explained(small_model, photos, tmp_path / "a")
    explained(small_model, [photos / "0" / "0.png"], tmp_path / "b")
    with pytest.raises(ValueError, match="no `id` in common"):
        report(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "chunks" / "chunk-000000.parquet").unlink()
    with pytest.raises(ValueError, match="no chunk is finished"):
        report(tmp_path / "b")
    with pytest.raises(ValueError, match=r"without a manifest\.json"):
        report(tmp_path)


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium, driven by Selenium."""
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,900"):
        options.add_argument(argument)
    started = webdriver.Chrome(options=options, service=Service(driver))
    yield started
    started.quit()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # selenium's sockets
@pytest.mark.browser
def test_a_hundred_thousand_rows_are_sorted_filtered_and_drawn_where_seen(
    browser, small_model, photos, tmp_path
):
    explained(small_model, photos, tmp_path / "out")
    page = report(tmp_path / "out")
    found, count = data_of(page), 100_000
    random = np.random.default_rng(0)
    found |= {"id": [f"{n:06d}.jpg" for n in range(count)], "rows": [list(range(count))]}
    found["label"] = random.integers(0, 4, count).tolist()
    found["prediction"] = random.integers(0, 4, count).tolist()
    found["group"], found["other"] = found["label"], [None] * count
    found["probability"] = random.random(count).round(6).tolist()
    found["columns"] = dict.fromkeys(found["columns"], found["probability"])
    page.with_suffix(".js").write_text(f"window.kvis2Rows = {json.dumps(found)};")
    browser.get(page.as_uri())
    first = "return document.querySelector('#pictures figure').title"
    drawn = "return document.querySelectorAll('#pictures figure').length"
    assert browser.execute_script(first) == "000000.jpg"
    assert browser.execute_script(drawn) < 400
    took = browser.execute_script(
        "const start = performance.now(); by('order').value = 'wrong and confident'; arrange();"
        "return performance.now() - start"
    )
    wrong = np.array(found["label"]) != np.array(found["prediction"])
    sure = np.where(wrong, found["probability"], -1).argmax()
    assert browser.execute_script(first) == f"{sure:06d}.jpg"
    assert took < 2000
    browser.execute_script("by('search').value = '00012'; arrange()")
    assert browser.execute_script("return shown.length") == sum(
        "00012" in name and is_wrong for name, is_wrong in zip(found["id"], wrong, strict=True)
    )
    browser.execute_script("by('search').value = ''; scrollTo(0, document.body.scrollHeight)")
    browser.execute_script("choose(2)")
    assert (
        browser.execute_script("return shown.length")
        == (wrong & (np.array(found["label"]) == 2)).sum()
    )
