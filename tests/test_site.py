"""The pages of the site: all code runs, every page is linked, every picture and name is there."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*found no evidence"),  # of untrained models
    pytest.mark.filterwarnings("ignore:.*(is|are) flat"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # Keras
    pytest.mark.filterwarnings("ignore:(currentThread|getName):DeprecationWarning"),  # keras-tuner
]


def text_of(page):
    return (DOCS / page).read_text(encoding="utf-8")


def sections(page):
    """The headings of a page and the Python code below each."""
    parts = re.split(r"^##+ ", text_of(page), flags=re.M)
    code = {part.splitlines()[0]: re.findall(r"```python\n(.*?)```", part, re.S) for part in parts}
    return {title: "\n".join(blocks) for title, blocks in code.items() if blocks}


RECIPES = sections("recipes.md")


@pytest.mark.slow
@pytest.mark.parametrize("title", RECIPES)
def test_recipe_runs_as_it_stands(title, tmp_path, monkeypatch):
    if "import keras_tuner" in RECIPES[title]:
        pytest.importorskip("keras_tuner")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "recipe"}
    exec(RECIPES[title], names)


PAGES = ["which_layer.md", "trust.md", "quickstart.md"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")  # Keras
@pytest.mark.parametrize("page", PAGES)
def test_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec("\n".join(sections(page).values()), {"__name__": "page"})
    if page == "quickstart.md":
        assert list((tmp_path / "logs" / "kvis2").glob("*tfevents*"))
        assert (tmp_path / "first.png").stat().st_size > 0


@pytest.mark.slow
@pytest.mark.parametrize("source", sorted((DOCS / "notebooks").glob("*.py")), ids=lambda p: p.stem)
def test_notebook_runs_as_a_script(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(source.read_text(encoding="utf-8"), {"__name__": "notebook"})


@pytest.mark.slow
def test_snippet_of_which_method_runs(small_model, images, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    boxes = [[2, 2, 8, 8]] * len(images)
    names = {"model": small_model, "images": images, "boxes": boxes}
    (code,) = sections("which_method.md").values()
    exec(code, names)
    assert (tmp_path / "comparison.csv").stat().st_size > 0
    assert "random maps" in capsys.readouterr().out


WITH_A_MODEL_AT_HAND = {  # What stands for the classes and layers of a bigger network.
    "metrics.md": {"243": "2"},
    "feature_visualisation.md": {
        **{"130": "2", "range(64)": "range(3)", "block3_conv1": "late", '"conv1"': '"early"'},
        **{"magnitude_constrained()": "magnitude_constrained(8)", 'steps": 32': 'steps": 4'},
    },
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*all evidence at")
@pytest.mark.parametrize("page", WITH_A_MODEL_AT_HAND)
def test_snippets_of_older_pages_run(page, small_model, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small_model.compile("sgd", "sparse_categorical_crossentropy")
    labels = np.array([0, 1, 0, 1, 1])
    names = {"model": small_model, "images": images, "x": images, "y": labels}
    names |= {"labels": labels, "boxes": [[2, 2, 8, 8]] * len(images)}
    code = "\n".join(sections(page).values())
    for written, here in WITH_A_MODEL_AT_HAND[page].items():
        assert written in code
        code = code.replace(written, here)
    exec(code, names)
    assert list((tmp_path / "logs").rglob("*tfevents*"))


def test_no_page_has_code_that_nothing_runs():
    run_here = {"recipes.md", "which_method.md", *WITH_A_MODEL_AT_HAND, *PAGES}
    tests = [path for path in (ROOT / "tests").glob("test_*.py") if path.name != "test_site.py"]
    elsewhere = "".join(path.read_text(encoding="utf-8") for path in tests)
    with_code = {page.name for page in DOCS.glob("*.md") if "```python" in page.read_text("utf-8")}
    assert {page for page in with_code - run_here if page not in elsewhere} == set()


def test_numbers_of_the_decision_table_are_those_that_were_measured():
    with open(DOCS / "which_method.csv", encoding="utf-8") as file:
        rows = {(row["explainer"], row["measure"]): row for row in csv.DictReader(file)}
    head = text_of("which_method.md").split("There is no answer")[0]
    quoted = [
        ("Grad-CAM", "localization AUC", "localization AUC {:.3g}"),
        ("Grad-CAM", "random logit", "random logit {:.3g}"),
        ("CAM", "random logit", "random logit {:.3g}"),
        ("LRP", "deletion", "deletion ({:.3g})"),
        ("LRP", "ROAD", "ROAD ({:.3g})"),
        ("LRP", "energy in box", "energy in box ({:.3g})"),
        ("integrated gradients", "insertion", "insertion {:.3g}"),
        ("guided", "random logit", "random logit {:.3g}"),
    ]
    for explainer, measure, text in quoted:
        row = rows[explainer, measure]
        assert text.format(float(row["mean"])) in head, (explainer, measure)
        if explainer == "LRP":
            assert float(row["rank"]) == 1, measure
    for explainer in ("Grad-CAM", "LRP"):
        seconds = float(rows[explainer, "ROAD"]["seconds_of_maps"])
        assert f"{1000 * seconds:.1f} ms" in head
    assert f"random maps {float(rows['LRP', 'insertion']['random']):.3g}" in head


def test_every_page_is_in_the_navigation_and_every_picture_and_link_is_there():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    assert pages == set(re.findall(r": ([\w/]+\.md)$", navigation, re.M))
    for page in pages:
        for target in re.findall(r"\]\(([^)#\s]+)", text_of(page)):
            if not target.startswith("http"):
                assert ((DOCS / page).parent / target).exists(), (page, target)


def test_every_recipe_that_was_promised_is_there():
    titles = "\n".join(RECIPES).lower()
    for kind in (
        *("u-net", "sigmoid", "multi-label", "regression", "time series", "spectrogram", "3-d"),
        *("text", "transformer", "several inputs", "siamese", "detector", "uint8"),
        *("mixed precision", "train_step", "goes on", "served", "csv", "hyperparameters"),
    ):
        assert kind in titles, kind


def test_pictures_of_strange_maps_come_from_the_script():
    script = (ROOT / "examples" / "strange_maps.py").read_text(encoding="utf-8")
    shown = re.findall(r"images/strange_(\w+)\.webp", text_of("strange_maps.md"))
    assert len(shown) == 5
    assert all(f'"{name}": [' in script for name in shown)
