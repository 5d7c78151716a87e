# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # One model that answers and explains
#
# `Explained` is a Keras model; `export` writes a SavedModel that needs neither kvis2 nor Keras.

# %%
import keras
import numpy as np
import tensorflow as tf

from kvis2 import Explained, GradCAM, export

# %%
photos = np.random.default_rng(0).random((4, 32, 32, 3), dtype="float32")
model = keras.Sequential(
    [
        keras.Input((32, 32, 3)),
        keras.layers.Conv2D(8, 3, activation="relu"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(3, activation="softmax"),
    ]
)
answer = Explained(model, GradCAM).predict(photos, verbose=0)
print(answer["predictions"].shape, answer["heatmap"].shape)

# %%
print(export(GradCAM(model), "served"))

# %% [markdown]
# What a server does, with TensorFlow alone:

# %%
served = tf.saved_model.load("served").signatures["serving_default"]
again = served(images=tf.constant(photos))
assert np.abs(again["heatmap"].numpy() - answer["heatmap"]).max() < 1e-4
