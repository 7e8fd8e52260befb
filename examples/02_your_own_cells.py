# %% [markdown]
# # Your own cells in ten minutes
#
# You have images, and label images in which every object has a number. This notebook checks them, trains a model,
# looks at its mistakes, and measures new images. Drawn cells stand for your images; replace the first cell with the
# path of your folder:
#
# ```text
# cells/
#   images/   a.tif  b.tif  ...
#   labels/   a.tif  b.tif  ...
# ```

# %%
import septa
from septa.synthetic import write_dataset

_ = write_dataset("cells", "cells", 16, (256, 256), seed=3, held_out=3)

# %% [markdown]
# ## Check the data
#
# septa lists what would spoil a training: files without a partner, labels that were resized or saved as JPEG, copies
# on both sides of the split. The same command runs in a terminal, without the exclamation mark.

# %%
# !septa check cells

# %% [markdown]
# ## See the settings
#
# Patch size, loss and number of steps follow from the data and the machine, each with its reason. Here the model
# `nuclei`, which septa ships, already finds most of the cells, so the training starts from it and takes its net. For
# objects that no shipped model knows, septa chooses a new net and more steps.

# %%
# !septa recipe cells --minutes 10 | grep "#" | grep -v "as in nuclei"

# %% [markdown]
# ## Train
#
# Ten minutes are enough for a useful model: `septa.train("cells", "cells.septa", minutes=10)`. This notebook takes
# less time: 60 steps on small patches. If the training is interrupted, `resume=True` continues it.

# %%
# Leave these settings out for your own data.
quick = ["training.steps=60", "training.batch=4", "sampling.patch=[128, 128]"]
model = septa.train("cells", "cells.septa", overrides=quick, callback=septa.progress())
model

# %%
septa.plot.curves("cells-run")

# %% [markdown]
# `cells-run/report.html` shows the same with the worst validation images.
#
# ## Look at new images

# %%
from pathlib import Path

from septa.images import read_labels

paths = sorted(Path("cells/held_out/images").iterdir())
images = [septa.read_image(path) for path in paths]
truth = [read_labels(path.parents[1] / "labels" / path.name).array.squeeze() for path in paths]
found = [model.predict(image) for image in images]
septa.plot.panels(images, truth, found, names=[path.stem for path in paths])

# %% [markdown]
# ## Score them
#
# `septa.evaluate` leaves out images that the model was trained on, and copies of them, even if they were turned or
# cropped. F1 counts objects, found at an IoU of one half; Dice counts pixels.

# %%
evaluation = septa.evaluate(model, "cells/held_out")
{name: round(evaluation.summary[name], 3) for name in ("f1_50", "dice")}

# %% [markdown]
# ## Measure them
#
# One row for each object, in pixels, and in micrometres if the file states its pixel size.

# %%
table = found[0].table
shown = ("label", "area", "eccentricity", "mean_channel_1", "confidence")
print(len(table), "objects,", len(table.columns), "columns, of which", len(shown), "are shown:")
print(*(f"{name:>15}" for name in shown))
for row in list(zip(*(table.columns[name] for name in shown)))[:5]:
    print(*(f"{value:15.2f}" for value in row))

# %% [markdown]
# ## Objects that are probably wrong
#
# The confidence is the chance that an object is correct, as far as the validation images show it. Dropping objects of
# low confidence trades missed objects for false ones.

# %%
for least in (0.0, 0.9, 0.95):
    kept = [model.predict(image, min_confidence=least) for image in images]
    print(f"confidence of at least {least}: {sum(len(one.table) for one in kept)} objects")

# %% [markdown]
# ## Continue from here
#
# New labelled images make the model better: add them to the folder and fine-tune.
#
# ```python
# septa.train("cells", "better.septa", start="cells.septa")
# ```
#
# `septa app my-images --model cells.septa` opens images in the browser, where you correct labels and write them to a
# folder for training.
