"""`kvis2 explain`: its arguments, and what it prints."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import keras

from kvis2 import explainers, lrp
from kvis2.dataset.explain import Summary, explain_dataset
from kvis2.dataset.measures import BY_DEFAULT, OF_BOXES, OF_MAPS
from kvis2.explainers import Explainer
from kvis2.gallery import (
    add_loading_arguments,
    add_space_arguments,
    class_names,
    image_shape,
    load_model,
    space_asked_for,
)
from kvis2.images import Framing

_BASES = (Explainer, explainers.Attribution, explainers.ClassActivationMap)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `kvis2 explain`."""
    add_model_arguments(parser)
    add_source_arguments(parser)
    add_method_arguments(parser)
    parser.add_argument(
        "--score", default="predicted", metavar="predicted|label|N", help="what is explained"
    )
    parser.add_argument("--labels", metavar="FILE", help="CSV or Parquet with path,label")
    parser.add_argument(
        "--metrics", nargs="*", default=list(BY_DEFAULT), metavar="NAME",
        help=f"measured of each map, of {', '.join([*OF_MAPS, *OF_BOXES])}; default: "
        f"{' '.join(BY_DEFAULT)}",
    )  # fmt: skip
    add_framing_argument(parser)
    _add_run_arguments(parser)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model, what its input is, and what its classes are called."""
    add_loading_arguments(parser)
    add_space_arguments(parser)
    parser.add_argument(
        "--names", metavar="FILE", help='of the classes, one on each line; or "imagenet"'
    )


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Which pictures, with which boxes, and where what is made of them goes."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        nargs="+",
        help="a folder (folders in it are labels), a glob in quotes, pictures, a CSV or Parquet "
        "file with path[,label][,boxes], TFRecord, or a WebDataset tar",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--boxes", metavar="FILE", help="CSV or Parquet with path,boxes; or JSON")


def source_of(options: argparse.Namespace) -> str | list[str]:
    """The source that `add_source_arguments` read: one, or several files."""
    return options.source[0] if len(options.source) == 1 else options.source


def add_method_arguments(parser: argparse.ArgumentParser) -> None:
    """What `made_explainer` takes."""
    parser.add_argument("--method", default="GradCAM", help="an explainer of kvis2; %(default)s")
    parser.add_argument("--layer", help="that the method looks at; default: the last feature map")


def add_framing_argument(parser: argparse.ArgumentParser) -> None:
    """How a photograph fills the input."""
    parser.add_argument(
        "--framing", choices=("stretch", "pad", "crop"), default="stretch",
        help="how a photograph fills the input: %(default)s, letterboxed, or its middle",
    )  # fmt: skip


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--map-size", type=int, default=56, metavar="N",
                        help="places of a kept map along an axis at most; %(default)s")  # fmt: skip
    parser.add_argument("--batch-size", type=int, metavar="N", help="pictures in one pass")
    parser.add_argument("--chunk-size", type=int, default=1024, metavar="N",
                        help="pictures in a file, lost at most by a kill; %(default)s")  # fmt: skip
    parser.add_argument("--overlays", type=_amount, default=0, metavar="N|all|none",
                        help="pictures with an overlay, from the first; none")  # fmt: skip
    parser.add_argument("--thumbnails", type=_amount, default=100_000, metavar="N|all|none",
                        help="pictures with a thumbnail for the page; %(default)s")  # fmt: skip
    parser.add_argument("--shard", type=_shard, default=(0, 1), metavar="i/n",
                        help="do every n-th chunk from the i-th, i from 0")  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="go on with what is in DIR")
    parser.add_argument("--retry", action="store_true",
                        help="with --resume: try again what failed")  # fmt: skip
    parser.add_argument("--format", choices=("parquet", "csv"),
                        help="of what is written; parquet if pyarrow is there")  # fmt: skip
    parser.add_argument("--ray", nargs="?", const=True, default=False, metavar="ADDRESS",
                        help="do it on a Ray cluster, or one on this machine")  # fmt: skip
    parser.add_argument("--workers", type=int, metavar="N", help="with --ray: how many actors")
    parser.add_argument("--json", action="store_true", help="tell the result as JSON")


def run(options: argparse.Namespace) -> int:
    """Explain a data set.

    Args:
        options: As `add_arguments` reads them.

    Returns:
        0, or 1 if pictures failed.

    Raises:
        ValueError: If model, method, source and settings do not fit.
        OSError: If the folder cannot be written to.
    """
    model, preprocess = load_model(options.model, options.random_weights, trust=options.trust)
    channels = image_shape(model)[2]
    names = class_names(options.names, model.outputs[0].shape[-1] or 0)
    with contextlib.redirect_stdout(sys.stderr):  # What workers of Ray say is not the result.
        summary = explain_dataset(
            model,
            source_of(options),
            made_explainer(model, options.method, options.layer),
            out=options.out,
            score=_score(options.score),
            space=space_asked_for(options, preprocess, channels),
            framing=Framing(options.framing),
            class_names=names,
            labels=options.labels,
            boxes=options.boxes,
            measures=options.metrics,
            map_size=options.map_size,
            batch_size=options.batch_size,
            chunk_size=options.chunk_size,
            overlays=options.overlays,
            thumbnails=options.thumbnails,
            shard=options.shard,
            resume=options.resume,
            retry=options.retry,
            parquet=None if options.format is None else options.format == "parquet",
            progress=sys.stderr,
            ray=options.ray,
            workers=options.workers,
        )
    print(json.dumps(summary.as_dict()) if options.json else _told(summary))
    return 1 if summary.failed else 0


def explainers_by_name() -> dict[str, type[Explainer]]:
    """All explainers of kvis2, but for those that are there to be inherited from."""
    known = {each: getattr(explainers, each) for each in explainers.__all__} | {"LRP": lrp.LRP}
    return {
        each: kind
        for each, kind in known.items()
        if isinstance(kind, type) and issubclass(kind, Explainer) and kind not in _BASES
    }


def made_explainer(model: keras.Model, name: str, layer: str | None, **settings: Any) -> Explainer:
    """The explainer of a name, with a layer where one is asked for, and with further settings.

    Raises:
        ValueError: If there is none of this name that takes a model alone.
    """
    methods = explainers_by_name()
    if name not in methods:
        raise ValueError(
            f"Expected a method, one of {', '.join(sorted(methods))}. Received: --method {name}."
        )
    try:
        return methods[name](model, *([] if layer is None else [layer]), **settings)
    except TypeError as error:
        raise ValueError(
            f"Expected a method that takes a model alone. Received: --method {name}, which says: "
            f"{error} Use kvis2.dataset.explain_dataset with one that you have made."
        ) from error


def _score(text: str) -> str | int:
    if text in ("predicted", "label"):
        return text
    if text.isdigit():
        return int(text)
    raise ValueError(
        f"Expected predicted, label, or the number of a class. Received: --score {text}."
    )


def _amount(text: str) -> int:
    """How many: a number, "all" or "none"."""
    amounts: dict[str, Any] = {"all": 2**62, "none": 0}
    value = amounts.get(text, int(text) if text.isdigit() else -1)
    if value < 0:
        raise argparse.ArgumentTypeError(f"Expected a number, all or none. Received: {text}.")
    return value


def _shard(text: str) -> tuple[int, int]:
    first, slash, count = text.partition("/")
    if not (slash and first.isdigit() and count.isdigit() and int(first) < int(count)):
        raise argparse.ArgumentTypeError(
            f"Expected i/n with i from 0 to n - 1. Received: {text}. Of four: 0/4, 1/4, 2/4, 3/4."
        )
    return int(first), int(count)


def _told(summary: Summary) -> str:
    lines = [f"{summary.explained:,} of {summary.pictures:,} pictures explained: {summary.folder}"]
    if summary.blank:
        lines.append(f"{summary.blank:,} maps are zero everywhere: no evidence was found.")
    if summary.missing:
        lines.append(f"{summary.missing:,} pictures are left for other shards.")
    if summary.failed:
        lines.append(f"{summary.failed:,} failed, for reasons in {summary.folder}/errors.csv.")
    return "\n".join(lines)
