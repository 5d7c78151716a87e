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
# # From a folder of images to a table
#
# For every file: the predicted class, and where the model looks hardest.

# %%
import csv
from pathlib import Path

import keras
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from kvis2 import GradCAM, images

# %%
folder = Path("photos")
folder.mkdir(exist_ok=True)
for name, photograph in zip(["temple", "flower"], load_sample_images().images, strict=True):
    Image.fromarray(photograph).save(folder / f"{name}.jpg")

# %% [markdown]
# Your model goes here. This one is not trained.

# %%
model = keras.Sequential(
    [
        keras.Input((96, 96, 3)),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Conv2D(8, 3, activation="relu"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(3, activation="softmax"),
    ]
)

# %%
files = sorted(folder.glob("*.jpg"))
photos = np.stack([np.asarray(Image.open(file).resize((96, 96))) for file in files])
heatmaps = GradCAM(model)(None, photos)
classes = model.predict(photos, verbose=0).argmax(axis=-1)
with open("explained.csv", "w", newline="") as table:
    rows = csv.writer(table)
    rows.writerow(["file", "class", "hottest row", "hottest column"])
    for file, photo, heatmap, label in zip(files, photos, heatmaps, classes, strict=True):
        row, column = np.unravel_index(heatmap.argmax(), heatmap.shape)
        rows.writerow([file.name, label, row, column])
        images.save(folder / "maps" / f"{file.stem}.png", images.overlay(photo, heatmap))
print(Path("explained.csv").read_text())
