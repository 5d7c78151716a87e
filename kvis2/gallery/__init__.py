"""Every picture that kvis2 can make of a model and photographs, in one folder with one page.

    python -m kvis2 gallery model.keras cat.jpg dog.jpg --out gallery
    python -m kvis2 gallery VGG16 snake.jpg --out gallery --only grad_cam layer_cam

A file that exists is kept, so that an interrupted gallery is continued by the same command.
"""

from kvis2.gallery.artifacts import ARTIFACTS, OF_THE_MODEL
from kvis2.gallery.command import add_arguments, run
from kvis2.gallery.input_space import InputSpace
from kvis2.gallery.loading import (
    add_loading_arguments,
    add_space_arguments,
    class_names,
    image_shape,
    load_model,
    space_asked_for,
)
from kvis2.gallery.page import Contents
from kvis2.gallery.pieces import Made, Piece, in_file
from kvis2.gallery.subject import evenly, middles

__all__ = [
    "ARTIFACTS",
    "OF_THE_MODEL",
    "Contents",
    "InputSpace",
    "Made",
    "Piece",
    "add_arguments",
    "add_loading_arguments",
    "add_space_arguments",
    "class_names",
    "evenly",
    "image_shape",
    "in_file",
    "load_model",
    "middles",
    "run",
    "space_asked_for",
]
