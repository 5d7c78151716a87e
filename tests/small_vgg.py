"""A VGG of a few thousand weights: the blocks and names of VGG16 and VGG19, narrow and short."""

import keras

# Convolutions in each block; the last has the four of VGG19.
BLOCKS = {"block1": 1, "block2": 1, "block3": 1, "block4": 1, "block5": 4}


def small_vgg(classes: int = 1000, size: int = 32, filters: int = 4) -> keras.Model:
    """The net with random weights that keep the signal alive through all its ReLUs.

    Args:
        classes: Units of the softmax "predictions".
        size: Height and width of the input, at least 32: five poolings halve it.
        filters: Of every convolution.
    """
    keras.utils.set_random_seed(7)
    layers = keras.layers
    options = {"activation": "relu", "kernel_initializer": "he_normal"}
    inputs = x = keras.Input((size, size, 3))
    for block, count in BLOCKS.items():
        for number in range(1, count + 1):
            name = f"{block}_conv{number}"
            x = layers.Conv2D(filters, 3, padding="same", name=name, **options)(x)
        x = layers.MaxPooling2D(name=f"{block}_pool")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(8, name="fc1", **options)(x)
    x = layers.Dense(8, name="fc2", **options)(x)
    outputs = layers.Dense(classes, activation="softmax", name="predictions")(x)
    return keras.Model(inputs, outputs, name="vgg")
