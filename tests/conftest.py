"""What all tests share: quiet TensorFlow, fixed seeds, small models, the real test data."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from pathlib import Path

import keras
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def fixed_seeds():
    """Every test starts from the same random state and a fresh Keras name space."""
    keras.utils.set_random_seed(1)
    yield
    keras.utils.clear_session(free_memory=False)


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real models and photographs beside the repository."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real models and photographs are not beside the repository")
    return folder


@pytest.fixture
def images():
    """Five random images, 16 x 12 RGB in 0..1."""
    return np.random.default_rng(0).random((5, 16, 12, 3), dtype="float32")


@pytest.fixture
def small_model():
    """conv -> relu -> pool -> conv -> relu -> GAP -> dense softmax over 4 classes.

    With this seed every class has evidence in every one of `images`, and predictions differ.
    """
    keras.utils.set_random_seed(3)
    inputs = keras.Input((16, 12, 3), name="image")
    x = keras.layers.Conv2D(6, 3, activation="relu", name="early")(inputs)
    x = keras.layers.MaxPooling2D(name="pool")(x)
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="late")(x)
    x = keras.layers.GlobalAveragePooling2D(name="gap")(x)
    outputs = keras.layers.Dense(4, activation="softmax", name="predictions")(x)
    return keras.Model(inputs, outputs, name="small")
