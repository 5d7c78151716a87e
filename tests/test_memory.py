"""How many rows a pass takes: the best number, and fewer where memory is short."""

import numpy as np
import pytest
import tensorflow as tf

import kvis2
from kvis2.passes import Compiled
from kvis2.passes import rows as row_count

GIGABYTE = 2**30


def photographs(side=224):
    return [np.zeros((3, side, side, 3), np.float32)]


@pytest.mark.parametrize(
    ("side", "free", "rows"),
    [
        (224, None, 16),  # a system that does not say
        (224, 24 * GIGABYTE, 16),
        (224, 1 * GIGABYTE, 8),
        (224, GIGABYTE // 2, 4),
        (224, 0, 1),
        (32, 0, 128),  # 150 MB are not worth a question
        (2000, 24 * GIGABYTE, 1),
    ],
)
def test_rows_go_by_the_size_of_the_input_and_by_free_memory(monkeypatch, side, free, rows):
    monkeypatch.setattr(row_count, "available", lambda: free)

    assert row_count.automatic_rows([each.shape for each in photographs(side)]) == rows


@pytest.fixture
def container(tmp_path, monkeypatch):
    """A system with 8 GB free, and the files of a container on it."""
    system = tmp_path / "meminfo"
    system.write_text("MemTotal: 16777216 kB\nMemFree: 1000 kB\nMemAvailable: 8388608 kB\n")
    monkeypatch.setattr(row_count, "_SYSTEM", system)
    monkeypatch.setattr(row_count, "_CONTAINER", tmp_path)
    return tmp_path


def write_limit(container, limit):
    (container / "memory.max").write_text(f"{limit}\n")
    (container / "memory.current").write_text(f"{3 * GIGABYTE}\n")
    (container / "memory.stat").write_text(f"anon 5\ninactive_file {GIGABYTE}\n")


def test_free_memory_is_that_of_the_system(container):
    assert row_count.available() == 8 * GIGABYTE


def test_free_memory_is_what_the_container_leaves_of_it(container):
    write_limit(container, 4 * GIGABYTE)
    assert row_count.available() == 2 * GIGABYTE  # Cached files give way.


def test_a_container_without_a_limit_takes_what_the_system_has(container):
    write_limit(container, "max")
    assert row_count.available() == 8 * GIGABYTE


def test_a_system_that_does_not_say_is_not_limited(container):
    row_count._SYSTEM.unlink()
    assert row_count.available() is None


@pytest.fixture
def small_memory(monkeypatch):
    """A device on which a pass of more than two rows fails; its rows so far."""
    original, rows = Compiled.__call__, []

    def limited(self, method, score, inputs):
        rows.append(method.rows)
        if len(inputs[0]) > 2:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor.")
        return original(self, method, score, inputs)

    monkeypatch.setattr(Compiled, "__call__", limited)
    return rows


def test_a_pass_that_does_not_fit_is_tried_with_fewer_rows(small_model, images, small_memory):
    saliency = kvis2.Saliency(small_model)
    many = np.concatenate([images] * 3)
    alone = np.concatenate([saliency(1, many[i : i + 1]) for i in range(len(many))])
    small_memory.clear()

    with pytest.warns(UserWarning, match=r"OOM .* 2 went through: `batch_size=2`") as warned:
        maps = saliency(1, many)

    assert {each.filename for each in warned} == {__file__}
    assert small_memory[-1] == 2
    np.testing.assert_allclose(maps, alone, atol=1e-6)


def test_a_batch_size_that_was_asked_for_is_kept(small_model, images, small_memory):
    many = np.concatenate([images] * 3)
    with pytest.raises(MemoryError, match=r"OOM.* Make `batch_size` smaller \(it is 5\)"):
        kvis2.Saliency(small_model, batch_size=5)(1, many)
