"""Refuses at import to run on another backend of Keras than TensorFlow."""

import os

_backend = os.environ.get("KERAS_BACKEND", "tensorflow")
if _backend == "tensorflow":  # Others may fail to import Keras before a sentence can be said.
    import keras

    _backend = keras.backend.backend()
if _backend != "tensorflow":
    raise ImportError(
        f"kvis2 expected Keras to run on TensorFlow. Received: KERAS_BACKEND={_backend}. "
        "Set KERAS_BACKEND=tensorflow before Keras is imported."
    )
