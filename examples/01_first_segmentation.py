# %% [markdown]
# # A first segmentation
#
# This notebook segments images that the model has never seen, and shows what septa returns. It needs no data of yours
# and no network.
#
# septa may ship with trained models. If it does, the first one is used here, on images that were kept out of its
# training (2018 Data Science Bowl, CC0). If not, the notebook draws cells and trains a small model on them, as `septa
# demo` does.

# %%
import septa
from septa.metrics import score_objects
from septa.pretrained import list_shipped
from septa.synthetic import write_dataset

shipped = next((one for one in list_shipped() if one.examples is not None), None)
if shipped is not None:
    model = septa.load(shipped.name)
    folder = shipped.examples
else:
    write_dataset("demo", "cells", 24, (256, 256), seed=0, held_out=3)
    quick = ["training.steps=150", "net.width=8", "net.depth=3", "training.batch=4", "sampling.patch=[128, 128]"]
    model = septa.train("demo", "demo.septa", overrides=quick)
    folder = "demo/held_out"
model

# %% [markdown]
# ## Segment
#
# A model is a function: an image, or a list of images, or their paths, gives labels. Labels are integers with the
# size of the image. 0 is background, and every other number is one object. The size of an image does not matter:
# septa cuts large ones into tiles, and the tiles leave no seams.

# %%
from pathlib import Path

paths = sorted(path for path in (Path(folder) / "images").iterdir() if path.suffix in (".png", ".tif"))[:3]
images = [septa.read_image(path) for path in paths]
labels = model(images)
[(path.name, one.shape, int(one.max())) for path, one in zip(paths, labels)]

# %% [markdown]
# ## Look
#
# The images have a ground truth, so mistakes can be shown: green is correct, red is too much, blue is missing, and
# yellow pixels belong to another object.

# %%
from septa.images import read_labels

truth = [read_labels(next((Path(folder) / "labels").glob(f"{path.stem}.*"))).array for path in paths]
truth = [one.squeeze() for one in truth]
septa.plot.panels(images, truth, labels)

# %% [markdown]
# ## Score
#
# An object is found if its overlap with a true object, divided by their union (IoU), is at least one half.

# %%
for path, true, found in zip(paths, truth, labels):
    scores = score_objects(true, found)
    print(f"{path.name}: {scores.truth_count} objects, {scores.prediction_count} found, F1 {scores.f1[0]:.3f}")

# %% [markdown]
# ## Everything about one image
#
# `predict` returns labels, confidence, probabilities and a table with a row for each object.

# %%
found = model.predict(paths[0])
found

# %%
septa.plot.grid(
    [found.image, found.draw(), found.confidence],
    titles=["image", "objects", "probability that the label is right"],
    columns=3,
)

# %%
found.save("labels.png")
for row in list(zip(*(found.table.columns[name] for name in ("label", "area", "confidence"))))[:4]:
    print("object {}: {} pixels, confidence {:.2f}".format(*row))

# %% [markdown]
# ## On the command line
#
# The same for a whole folder, with pictures and a table:
#
# ```bash
# septa predict MODEL YOUR_IMAGES -o segmented --overlay --table objects.csv
# ```
#
# Next: train on your own images, in notebook 2.
