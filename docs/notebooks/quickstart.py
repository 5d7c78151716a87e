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
# # kvis2 in ten minutes
#
# A small network learns to tell a temple from a flower, and shows where it looks. To make a
# notebook of this file: `jupytext --to ipynb quickstart.py`.

# %%
import keras
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from kvis2 import GradCAM, describe, images
from kvis2.callbacks import CamLogger

# %% [markdown]
# ## Data: crops of two photographs

# %%
rng = np.random.default_rng(0)
photographs = load_sample_images().images
labels = np.arange(200) % 2
crops = []
for label in labels:
    height, width = photographs[label].shape[:2]
    size = int(rng.integers(60, 300))
    top, left = rng.integers(height - size), rng.integers(width - size)
    square = photographs[label][top : top + size, left : left + size]
    crops.append(np.asarray(Image.fromarray(square).resize((64, 64))))
crops = np.stack(crops)

# %% [markdown]
# ## A model, and what there is to look at

# %%
model = keras.Sequential(
    [
        keras.Input((64, 64, 3)),
        keras.layers.Rescaling(1 / 127.5, offset=-1),
        keras.layers.Conv2D(16, 3, strides=2, padding="same", activation="relu"),
        keras.layers.Conv2D(32, 3, strides=2, padding="same", activation="relu"),
        keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(2, activation="softmax"),
    ]
)
model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
description = describe(model)

# %% [markdown]
# ## Train with the logger; `tensorboard --logdir logs` shows its panels

# %%
logger = CamLogger("logs", crops[:4], labels[:4], class_names=["temple", "flower"])
model.fit(crops, labels, epochs=5, verbose=0, callbacks=[logger])
logger.history["step"]

# %% [markdown]
# ## Explain: half a temple and half a flower, asked for each

# %%
temple, flower = photographs
halves = np.concatenate([temple[60:420, 250:430], flower[20:380, 230:410]], axis=1)
both = images.resize(halves, 64)
heatmaps = GradCAM(model)([0, 1], np.stack([both, both]))
right = heatmaps[:, :, 32:].sum((1, 2)) / heatmaps.sum((1, 2))
print(f"share of the heat in the right half: temple {right[0]:.2f}, flower {right[1]:.2f}")
images.save("quickstart.png", images.strip([images.overlay(both, each) for each in heatmaps]))
