"""The net of the golden numbers of the measures, from its stored weights."""

import keras
import numpy as np
from keras import layers

ORDER = ("features_0", "features_3", "features_6", "features_8", "features_10", "fc1", "fc2")


def small_alexnet(file, activation="softmax"):
    """Convolutions 11/4, 5, 3, 3, 3 with a ReLU each, three poolings, two dense layers."""
    stored = np.load(file)

    def convolution(number, filters, size, **options):
        name = f"features_{number}"
        return layers.Conv2D(filters, size, activation="relu", name=name, **options)

    model = keras.Sequential(
        [
            keras.Input((224, 224, 3)),
            layers.ZeroPadding2D(2),
            convolution(0, 16, 11, strides=4),
            layers.MaxPooling2D(3, 2),
            convolution(3, 32, 5, padding="same"),
            layers.MaxPooling2D(3, 2),
            convolution(6, 48, 3, padding="same"),
            convolution(8, 32, 3, padding="same"),
            convolution(10, 32, 3, padding="same"),
            layers.MaxPooling2D(3, 2),
            layers.Flatten(),
            layers.Dense(64, activation="relu", name="fc1"),
            layers.Dense(1000, activation=activation, name="fc2"),
        ]
    )
    for name in ORDER:
        model.get_layer(name).set_weights([stored[f"{name}_w"], stored[f"{name}_b"]])
    return model
