"""Explain a data set: decode, explain and write at once, in chunks that a later run goes on by."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TextIO

import keras

from kvis2 import models
from kvis2.dataset.annotations import annotated
from kvis2.dataset.classes import Classes
from kvis2.dataset.cluster import on_cluster
from kvis2.dataset.explaining import Explaining, check_model
from kvis2.dataset.manifest import (
    check_same,
    read_manifest,
)
from kvis2.dataset.measures import BY_DEFAULT, check_measures
from kvis2.dataset.reading import Reader
from kvis2.dataset.running import Run, Summary
from kvis2.dataset.sources import Row, Source, rows_of
from kvis2.dataset.store import Store
from kvis2.explainers import Explainer, GradCAM
from kvis2.gallery import InputSpace, image_shape
from kvis2.images import Framing


def explain_dataset(
    model: keras.Model,
    source: Source,
    explainer: Explainer | None = None,
    *,
    out: str | PathLike[str],
    score: Any = "predicted",
    space: InputSpace | None = None,
    framing: Framing = Framing(),  # noqa: B008 (frozen)
    class_names: Sequence[str] = (),
    labels: str | PathLike[str] | None = None,
    boxes: str | PathLike[str] | None = None,
    measures: Sequence[str] = BY_DEFAULT,
    map_size: int = 56,
    batch_size: int | None = None,
    chunk_size: int = 1024,
    overlays: int = 0,
    thumbnails: int = 100_000,
    shard: tuple[int, int] = (0, 1),
    resume: bool = False,
    retry: bool = False,
    parquet: bool | None = None,
    progress: TextIO | None = None,
    ray: bool | str = False,
    workers: int | None = None,
) -> Summary:
    """Explain every picture of a source, and keep what was found in a folder.

    A picture that cannot be read, or whose map is not finite, is a row with its reason, and the
    others go on. Chunks are written aside and renamed: a run that is killed at any moment is
    continued by `resume=True`, nothing twice and nothing lost. The same pictures in the same
    chunks give the same bytes on the same machine.

    Args:
        model: A built model of one image `(batch, height, width, 1 or 3)` and one output.
        source: A folder, a glob, files, a CSV or Parquet file, a TFRecord or a tar: see
            `kvis2.dataset.rows_of`; or rows that it returned.
        explainer: The method, of this model; `GradCAM(model)` by default. Maps are kept on the
            grid of its layer, or as area means of at most `map_size` places along an axis.
        out: The folder.
        score: "predicted", "label" (of the source), a class; or what else the explainer takes for
            a batch of any size.
        space: What black and white are to the model; 0..255 by default.
        framing: How a photograph fills the input. It is remembered, so that a map goes back.
        class_names: The names of the classes in the order of the outputs, where they are known.
        labels: A CSV or Parquet file with `path` and `label`, in the place of those of the source.
        boxes: Likewise with `path` and `boxes`; or JSON, `{"cat.jpg": [x0, y0, x1, y1]}`. Corners
            are pixels of the photograph.
        measures: What is measured of each map: `complexity`, `sparseness`, `effective_complexity`;
            with boxes `energy_in_box`, `pointing_game`, `relevance_rank`, `localization_auc`.
        map_size: See `explainer`.
        batch_size: How many pictures one pass holds. None chooses by their size.
        chunk_size: How many pictures are written at once, and lost at most by a kill; rounded up
            to whole batches.
        overlays: For how many pictures, from the first, an overlay is written.
        thumbnails: Likewise for the small pictures of the page.
        shard: `(i, n)` does every n-th chunk from the i-th, counted from 0; n runs into one folder
            make the whole.
        resume: Go on with what the folder holds.
        retry: With `resume`, do chunks again in which a picture failed.
        parquet: False writes CSV and `.npz`, which needs no pyarrow; None as pyarrow is there.
        progress: Where rate and time left are told, such as `sys.stderr`; None is silent.
        ray: Whether chunks are done by a Ray cluster: the address of one, or True for that of
            `RAY_ADDRESS`, or else one on this machine. All its nodes must see pictures and `out`.
        workers: With `ray`, how many actors; None is one for each processor.

    Returns:
        What the folder holds now.

    Raises:
        ValueError: If model, method, source and settings do not fit; if the folder holds another
            data set, or holds one and `resume` is False.
        OSError: If the folder cannot be written to, as on a full disk. What was written stays
            whole, and `resume=True` goes on.

    Example:
        >>> summary = explain_dataset(model, "photos", GradCAM(model), out="explained")
        >>> summary.explained, summary.failed
        (300, 0)
    """
    check_measures(measures)
    _check_counts(shard, map_size, chunk_size)
    explainer = GradCAM(model) if explainer is None else explainer
    reader = _reader(model, explainer, space, framing)
    folder = Path(out)
    known = _known(folder, source, resume)
    # Kept with the folder: how many fit into memory today must not change what is computed.
    size = known["batch_size"] if known else batch_size
    size = size or explainer.rows_of([(1, *reader.size, reader.space.channels)])
    store = Store(folder, parquet if known is None else known["chunk_format"] == "parquet")
    rows = store.listing() if known else annotated(_listed(source), labels, boxes)
    units = model.outputs[0].shape[-1] or 0
    classes = Classes([row.label for row in rows], class_names, max(units, 2))
    explaining = Explaining(explainer, reader, score, classes, measures, map_size, size)
    _check_labels(score, rows, classes)
    run = Run(store, explaining, rows, -(-chunk_size // size) * size, overlays, thumbnails)
    _begin(run, run.manifest(_named(source), explainer.settings.normalize), known)
    chunks = run.pending(shard, retry)
    if ray:
        address = None if ray is True else ray
        return on_cluster(run, chunks, address, workers, progress)
    return run.through(chunks, progress)


def _begin(run: Run, manifest: dict[str, Any], known: dict[str, Any] | None) -> None:
    """Write what a run is made with, or see that it is what the folder was made with."""
    if known is not None:
        check_same(known, manifest, run.store.folder)
        return
    run.store.write_listing(run.rows)
    run.store.write_manifest(manifest)  # Last: without it a folder is one that is not begun.


def _reader(
    model: keras.Model, explainer: Explainer, space: InputSpace | None, framing: Framing
) -> Reader:
    """How the pictures of a model are read; a sentence where model and method do not fit."""
    check_model(model)
    height, width, channels = image_shape(model)
    if not isinstance(explainer, Explainer) or explainer.model is not model:
        raise ValueError(
            f"Expected an explainer of '{model.name}'. Received: {explainer!r}"
            + (", of another model" if isinstance(explainer, Explainer) else "")
            + ". Give for example GradCAM(model)."
        )
    space = space or InputSpace((0.0,) * channels, (255.0,) * channels)
    if space.channels != channels:
        raise ValueError(
            f"Expected an input space of {channels} channels, as '{model.name}' has. Received: "
            f"{space.channels}. Give (low,) * {channels}."
        )
    models.check_finite(model)
    return Reader((height, width), space, framing)


def _check_counts(shard: tuple[int, int], map_size: int, chunk_size: int) -> None:
    if not 0 <= shard[0] < shard[1]:
        raise ValueError(
            f"Expected a shard (i, n) with i from 0 to n - 1. Received: {shard}. The first of four "
            "is (0, 4)."
        )
    for name, value in (("map_size", map_size), ("chunk_size", chunk_size)):
        if value < 1:
            raise ValueError(f"Expected {name} from 1. Received: {value}. Leave it out.")


def _check_labels(score: Any, rows: Sequence[Row], classes: Classes) -> None:
    """Raise where labels are to be explained and none is a class; of records they come later."""
    if score == "label" and all(r.offset < 0 and classes.number(r.label) is None for r in rows):
        found = sorted({row.label for row in rows})[:5]
        raise ValueError(
            f"Expected labels that are classes of the model, to explain them. Received: {found}. "
            "Give --names (class_names=), or labels that are numbers."
        )


def _known(folder: Path, source: Source, resume: bool) -> dict[str, Any] | None:
    """What a folder was made with, if it is gone on with; None if it is begun."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"Expected a folder. Received: {folder}, which is a file. Give another.")
    around = [folder.resolve(), *folder.resolve().parents]
    if isinstance(source, str | PathLike) and Path(source).resolve() in around:
        raise ValueError(
            f"Expected a folder outside of the source. Received: {folder}, in {source}, whose "
            "overlays would be taken for photographs. Give another."
        )
    known = read_manifest(folder)
    if known is not None and not resume:
        raise ValueError(
            f"Expected a new folder. Received: {folder}, which holds {known['pictures']} pictures "
            f"of {known['source']}. Go on with it by --resume (resume=True), or give another."
        )
    return known


def _listed(source: Any) -> list[Row]:
    """The rows of a source; rows stay what they are."""
    is_rows = isinstance(source, list) and source and all(isinstance(each, Row) for each in source)
    return list(source) if is_rows else rows_of(source)


def _named(source: Any) -> Any:
    """A source as the manifest has it."""
    if isinstance(source, str | PathLike):
        return os.fspath(source)
    listed = [each if isinstance(each, Row) else os.fspath(each) for each in source]
    digest = hashlib.sha256(repr(listed).encode("utf-8", "backslashreplace")).hexdigest()
    return f"{len(listed)} sources, {digest[:16]}"
