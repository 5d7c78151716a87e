"""The table in docs/model_matrix.md: written from the outcomes of a test run, and read back."""

from collections.abc import Mapping
from pathlib import Path

from model_zoo import GROUPS

PAGE = Path(__file__).parents[1] / "docs" / "model_matrix.md"
GREEN = "yes"
_HEAD = """# Which models work

Functional, Sequential, subclassed and nested models; one or several inputs and outputs; images,
series, volumes and text; mixed precision and XLA: {kinds} kinds of models and {methods}
explainers were tried. {right} pairs pass the checks below, {refused} are answered with a
sentence (a refusal that says what works instead, or a warning of a map without evidence), and
{empty} were not tried: those explainers share their parts with others that were. The tables are
folded, by what is special about the model; a number stands for the sentence below.

<details markdown="1"><summary>How this is known</summary>

✓: the map is finite and not blank, that of a batch is that of each sample alone, and, where the
model is the same network in another dress (nested, subclassed, saved, channels first, ...), the
map is the plain model's. Written by the test run `UPDATE_DOCS=1 pytest -m ""
tests/test_model_matrix.py`; the tests check that it is current. The kinds are built in
`tests/model_zoo.py`.

</details>
"""
_FOLD = '<details markdown="1"><summary>{}</summary>'
_TITLES = {
    "model": "How the model is made",
    "output": "What comes out",
    "input": "What goes in",
    "precision and layout": "Precision, layout, and the way it runs",
    "keras.applications": "keras.applications, random weights",
}


_ZOO = """## Published architectures beside a GradientTape

Grad-CAM at the layer that kvis2 chooses (the embedding of tokens), and the gradient by the input
(by the embedding), of published architectures with random weights, batch normalisation included,
in a small size where the package offers one: the largest difference to a `tf.GradientTape` over the
plain Keras model, as a share of the largest value. With {packages}. Written by the test run
`UPDATE_DOCS=1 pytest -m exhaustive tests/test_zoo.py`; the architectures are built in
`tests/architectures.py`, which skips the packages that are not installed.

"""
_ZOO_HEAD = ["package", "architecture", "layer and its grid", "Grad-CAM", "gradient"]


def zoo_part(page: str) -> str:
    """The part of a page that tells of published architectures, or nothing."""
    title = _ZOO.splitlines()[0]
    return page[page.index(title) :] if title in page else ""


def zoo_rows(page: str) -> dict[tuple[str, str], list[str]]:
    """The cells of that part by package and architecture."""
    rows = {}
    for line in zoo_part(page).splitlines():
        first, *cells = [each.strip() for each in line.strip("|").split("|")]
        if line.startswith("| ") and first not in (_ZOO_HEAD[0], "---"):
            rows[first, cells[0]] = cells[1:]
    return rows


def write_zoo(rows: Mapping[tuple[str, str], list[str]], versions: Mapping[str, str]) -> None:
    """Put the part with these rows at the end of the page, which stays as it is before it."""
    page = PAGE.read_text(encoding="utf-8")
    before = page.removesuffix(zoo_part(page)).rstrip("\n")
    table = [_row(_ZOO_HEAD), _row(["---"] * len(_ZOO_HEAD))]
    table += [_row([*names, *cells]) for names, cells in rows.items()]
    part = _ZOO.format(packages=", ".join(versions.values())) + "\n".join(table)
    PAGE.write_text(f"{before}\n\n{part}\n", encoding="utf-8")


def rendered(outcomes: Mapping[tuple[str, str], str]) -> str:
    """The page for the outcomes of all cells (kind, explainer), but for the zoo."""
    methods = list(dict.fromkeys(method for _, method in outcomes))
    kinds = list(dict.fromkeys(kind for kind, _ in outcomes))
    refusals = list(dict.fromkeys(each for each in outcomes.values() if each not in (GREEN, "")))
    found = list(outcomes.values())
    lines = [
        _HEAD.format(
            kinds=len(kinds),
            methods=len(methods),
            right=found.count(GREEN),
            refused=len(found) - found.count(GREEN) - found.count(""),
            empty=found.count(""),
        )
    ]
    for group in dict.fromkeys(GROUPS.values()):
        count = sum(GROUPS[kind] == group for kind in kinds)
        lines += [f"## {_TITLES[group]}", "", _FOLD.format(f"{count} kinds"), ""]
        lines += [_row(["kind", *methods])]
        lines += [_row(["---"] * (len(methods) + 1))]
        for kind in kinds:
            if GROUPS[kind] == group:
                found = [outcomes[kind, method] for method in methods]
                marks = [_mark(each, refusals) for each in found]
                lines.append(_row([kind, *marks]))
        lines += ["", "</details>", ""]
    lines += ["## Refusals", ""]
    lines += [f"{number}. {each}" for number, each in enumerate(refusals, 1)]
    return "\n".join(lines) + "\n"


def parsed(page: str) -> dict[tuple[str, str], str]:
    """The outcomes that a page holds: the way back from `rendered`."""
    page = page.removesuffix(zoo_part(page))
    refusals = {
        number: sentence
        for number, _, sentence in (line.partition(". ") for line in page.splitlines())
        if number.isdecimal()
    }
    outcomes: dict[tuple[str, str], str] = {}
    methods: list[str] = []
    for line in page.splitlines():
        if not line.startswith("| ") or line.startswith("| ---"):
            continue
        first, *marks = [each.strip() for each in line.removeprefix("|")[:-1].split("|")]
        if first == "kind":
            methods = marks
            continue
        for method, mark in zip(methods, marks, strict=True):
            outcomes[first, method] = GREEN if mark == "✓" else refusals.get(mark, "")
    return outcomes


def _mark(outcome: str, refusals: list[str]) -> str:
    """A tick, the number of a refusal, or nothing where a cell has not been run."""
    if outcome in refusals:
        return str(refusals.index(outcome) + 1)
    return "✓" if outcome == GREEN else ""


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
