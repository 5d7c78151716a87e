"""The table of formats in docs/deploy.md is the one that was measured, and full."""

import json
from pathlib import Path

import benchmarks_package  # noqa: F401 (so that `benchmarks` is found)
import pytest

from benchmarks import formats

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture(scope="module")
def document():
    return json.loads((DOCS / "formats.json").read_text())


def test_the_page_has_the_numbers_that_were_measured(document):
    page = (DOCS / "deploy.md").read_text()
    assert formats.filled(page, document) == page
    changed = json.loads(json.dumps(document))
    changed["rows"]["CAM"]["onnx"] = {"refused": "No."}
    assert formats.filled(page, changed) != page


def test_every_cell_is_a_number_or_a_sentence(document):
    for name in formats.METHODS:
        for format in formats.FORMATS:
            found = document["rows"][name][format]
            if "refused" in found:
                assert found["refused"].startswith("Expected ")
                assert "Received: " in found["refused"]
            else:
                assert found["correlation"] > (0.95 if format == "int8" else 0.999)
                assert found["latency_ratio"] > 0


def test_a_cell_says_what_it_found():
    refusals: list = []
    found = {"difference": 2.4e-7, "correlation": 0.9984, "latency_ratio": 1.26, "bytes": 10}
    assert formats.written(found, "onnx", refusals) == "2e-07, x1.3"
    assert formats.written(found, "int8", refusals) == "r 0.998, x1.3"
    sentence = {"refused": "Expected X. Received: Y, at 'a/b'. Do Z."}
    assert formats.written(sentence, "onnx", refusals) == "refused (1)"
    assert formats.written(sentence, "litert", refusals) == "refused (1)"
    assert refusals == ["Expected X. Received: Y. Do Z."]
