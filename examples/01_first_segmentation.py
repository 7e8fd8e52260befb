# %% [markdown]
# # A first segmentation
#
# This notebook segments images that the model has never seen, and shows what septa returns. It needs no data of yours
# and no network: septa ships the model `nuclei`, and images that were kept out of its training (BBBC039 and the 2018
# Data Science Bowl, CC0).

# %%
import septa

model = septa.load("nuclei")
model

# %% [markdown]
# ## Segment
#
# A model is a function: an image, or a list of images, or their paths, gives labels. Labels are integers with the
# size of the image. 0 is background, and every other number is one object. The size of an image does not matter:
# septa cuts large ones into tiles, and the tiles leave no seams.

# %%
from septa.pretrained import get_shipped

folder = get_shipped("nuclei").examples
paths = sorted(folder.glob("images/*.png"))  # or paths of your own images
images = [septa.read_image(path) for path in paths]
labels = model(images)
for path, labels_yx in zip(paths, labels):
    print(f"{path.name}: labels {labels_yx.shape}, {labels_yx.dtype}, {labels_yx.max()} objects")

# %% [markdown]
# ## Look
#
# The images have a ground truth, so mistakes can be shown: green is correct, orange is too much, blue is missing, and
# yellow pixels belong to another object.

# %%
from septa.images import read_labels

truth = [read_labels(folder / "labels" / path.name).array.squeeze() for path in paths]
septa.plot.panels(images, truth, labels, names=["fluorescence", "stained tissue"])

# %% [markdown]
# ## Score
#
# An object is found if its overlap with a true object, divided by their union (IoU), is at least one half. The stained
# image is hard: nuclei out of focus are background in its ground truth.

# %%
from septa.metrics import score_objects

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
    [found.image, found.draw(), found.confidence], titles=["image", "objects", "confidence of each pixel"], columns=3
)

# %%
found.save("labels.png")
print("label      area  confidence")
for row in list(zip(*(found.table.columns[name] for name in ("label", "area", "confidence"))))[:5]:
    print("{:5} {:9.0f} {:11.2f}".format(*row))

# %% [markdown]
# ## On the command line
#
# The same for a whole folder, with pictures and a table:
#
# ```bash
# septa predict nuclei YOUR_IMAGES -o segmented --overlay --table objects.csv
# ```
#
# Next: train on your own images, in notebook 2.
