"""Chunks of a data set on a cluster: Ray Data and a pool of actors, each with its own model."""

from __future__ import annotations

import contextlib
import copy
import os
import pickle
import time
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

import numpy as np
import tensorflow as tf

from kvis2 import models
from kvis2.dataset.progress import Progress
from kvis2.dataset.running import Run, Summary, summary_of
from kvis2.explainers import Explainer
from kvis2.extras import imported

_MOST_BLOCKS = 10_000
_RETRIES = 4


def on_cluster(
    run: Run,
    chunks: Sequence[int],
    address: str | None = None,
    workers: int | None = None,
    stream: TextIO | None = None,
) -> Summary:
    """Explain chunks on a Ray cluster, as `Run.through` does on this machine.

    Each worker writes the chunks that it has done into the folder, which all must see at the same
    path, as they must the pictures. A worker that dies is started again and does its chunk anew:
    a chunk is written as a whole, so that does no harm.

    Args:
        run: What is done.
        chunks: The numbers of the chunks.
        address: Of a cluster; None is that of `RAY_ADDRESS`, or a cluster on this machine.
        workers: How many actors; None is one for each processor of the cluster.
        stream: Where rate and time left are told.

    Raises:
        ValueError: If ray is missing, or the method cannot be sent to a worker.
        OSError: If a worker could not write.
    """
    ray = _ray()
    start = time.monotonic()
    is_ours = not ray.is_initialized()
    if is_ours:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    count = max(1, min(len(chunks), workers or int(ray.cluster_resources().get("CPU", 1))))
    progress = Progress(sum(len(run.of_chunk(each)) for each in chunks), stream)
    context.print_on_execution_start = False
    try:
        for row in _done(ray, run, chunks, count):
            if row["error"]:
                raise OSError(row["error"])
            progress.add(int(row["pictures"]), int(row["failed"]))
    except ray.exceptions.RayError as error:
        raise OSError(
            f"Expected workers that live. Received: {str(error).strip().splitlines()[-1]} "
            f"{len(run.store.finished())} chunks are whole; go on with --resume (resume=True)."
        ) from error
    finally:
        progress.close()
        if is_ours:
            ray.shutdown()
    run.store.write_errors()
    return summary_of(run.store, len(run.rows), progress.done, time.monotonic() - start)


def _done(ray: Any, run: Run, chunks: Sequence[int], workers: int) -> Iterator[dict[str, Any]]:
    """What is told of each chunk when it has been done."""
    if not chunks:
        return
    threads = tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count()
    items = ray.data.from_items(
        [{"chunk": each} for each in chunks], override_num_blocks=min(len(chunks), _MOST_BLOCKS)
    )
    yield from items.map_batches(
        Worker,
        fn_constructor_args=(packed(run), threads),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=1,
        # An actor that dies is started again; a chunk that kills five of them ends the run.
        ray_remote_args_fn=lambda: {"max_restarts": -1, "max_task_retries": _RETRIES},
    ).iter_rows()


class Worker:
    """An actor: one model and one compiled pass, which does one chunk after the other.

    Args:
        sent: What `packed` made.
        threads: Over how many threads one operation is spread: as many as on one machine, since
            sums depend on it in their last digits.
    """

    def __init__(self, sent: bytes, threads: int) -> None:
        with contextlib.suppress(RuntimeError):  # Where the process has computed before.
            tf.config.threading.set_intra_op_parallelism_threads(threads)
        self._run = unpacked(sent)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do the chunks of a batch; what could not be written is told, since no retry mends it."""
        found: dict[str, list[Any]] = {"chunk": [], "pictures": [], "failed": [], "error": []}
        for number in np.asarray(batch["chunk"]).tolist():
            pictures = failed = 0
            error = ""
            try:
                for columns in self._run.chunk(number):
                    pictures += len(columns["id"])
                    failed += sum(map(bool, columns["error"]))
            except OSError as raised:
                error = str(raised)
            for name, value in zip(found, (number, pictures, failed, error), strict=True):
                found[name].append(value)
        return {name: np.array(values) for name, values in found.items()}


def packed(run: Run) -> bytes:
    """A run as bytes, without its listing, which is in its folder.

    Raises:
        ValueError: If its method cannot be sent.
    """
    sent = copy.copy(run)
    sent.rows = []
    sent.explaining = copy.copy(run.explaining)
    sent.explaining.explainer = _by_path(run.explaining.explainer)
    try:
        return _ray().cloudpickle.dumps(sent)
    except (TypeError, AttributeError, pickle.PicklingError) as error:
        raise ValueError(
            "Expected a model and a method that can be sent to other processes. Received: "
            f"{type(run.explaining.explainer).__name__} on '{run.explaining.explainer.model.name}',"
            f" of which is said: {error}. Leave out `ray`, or functions of your own."
        ) from error


def unpacked(sent: bytes) -> Run:
    """The run again, with its listing."""
    run: Run = pickle.loads(sent)
    run.rows = run.store.listing()
    return run


def _by_path(explainer: Explainer) -> Explainer:
    """The explainer with its layer by path: a layer by itself would not be that of the model."""
    reference = explainer.settings.reference
    if reference is None or isinstance(reference, str):
        return explainer
    found = models.find_layer(explainer.model, reference)
    return explainer.with_settings(reference=models.layer_path(explainer.model, found))


def _ray() -> Any:
    """The package ray, with its part `data`."""
    imported("ray.data", "a cluster", "ray")
    return imported("ray", "a cluster", "ray")
