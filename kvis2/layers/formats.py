"""Formats of files: how a function is written in one, opened again, and what is in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from kvis2.extras import check_installed

Run: TypeAlias = "Callable[..., dict[str, np.ndarray]]"
"""An opened file: inputs by name -> outputs by name."""


class Format:
    """One format. Subclasses say how it is written and opened.

    Attributes:
        name: As users say it.
        title: As it is called.
        suffix: How its files end; none for a folder.
        modules: What has to be installed to write and to run it.
        portable: Whether gradients have to be written in forward operations.
    """

    name = ""
    title = ""
    suffix = ""
    modules: tuple[str, ...] = ()
    portable = True

    def check_installed(self) -> None:
        """Raise if a package is missing."""
        check_installed(self.modules, f"files of {self.title}", "export")

    def write(self, saved: Path, serving: Any, target: Path) -> None:
        """Write a function, of which there is a SavedModel, to a file.

        Args:
            saved: The SavedModel.
            serving: The same function, a `tf.function` with its signature.
            target: The file, or the folder, that is not there yet.

        Raises:
            ValueError: If the format has no operation for something in it.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how to write.")

    def opened(self, path: Path) -> Run:
        """A file, ready to be run."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to open.")

    def operations(self, path: Path) -> Sequence[str]:
        """The types of operations in a file, sorted."""
        raise NotImplementedError(f"{type(self).__name__} does not say what is in it.")

    def failure(self, error: Exception) -> ValueError:
        """The sentence for an error of a converter or a runtime that names no operation."""
        lines = [each.strip() for each in str(error).splitlines() if each.strip()]
        return ValueError(
            f"Expected a pass that {self.title} can take. Received: one of which it says "
            f"'{lines[0][:200] if lines else type(error).__name__}'. Export a SavedModel "
            "(`format='saved_model'`), or another method: `CAM` needs no gradients."
        )

    def refusal(self, names: Sequence[str]) -> ValueError:
        """The sentence for operations that the format does not have."""
        return ValueError(
            f"Expected operations that {self.title} has. Received: {', '.join(names)}, which it "
            "has not. Export a SavedModel (`format='saved_model'`), which has all of them, or "
            "another method: `CAM` needs no gradients."
        )


class SavedModel(Format):
    """TensorFlow's own format, a folder: everything that can be traced."""

    name = "saved_model"
    title = "SavedModel"
    portable = False

    def write(self, saved: Path, serving: Any, target: Path) -> None:
        """The SavedModel is there already."""
        saved.rename(target)

    def opened(self, path: Path) -> Run:
        """The signature `serving_default`."""
        loaded = tf.saved_model.load(str(path))
        signature = loaded.signatures["serving_default"]
        signature.keeps_alive = loaded
        return signature

    def operations(self, path: Path) -> Sequence[str]:
        """Types of TensorFlow operations, those of all functions."""
        graph = self.opened(path).graph.as_graph_def()  # type: ignore[attr-defined]
        bodies = [graph.node, *(each.node_def for each in graph.library.function)]
        return sorted({node.op for body in bodies for node in body})


def save(model: keras.Model, serving: Any, path: Path) -> None:
    """Write a function and the variables of its model as a SavedModel, each of them once."""
    module = tf.Module()
    module.weights = [each.value for each in model.variables]
    module.serving = serving
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(module, str(path), {"serving_default": serving}, options)
