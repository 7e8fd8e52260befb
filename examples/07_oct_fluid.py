# %% [markdown]
# # Fluid in scans of the retina
#
# Fluid in an OCT scan is dark, covers a few percent of the pixels, and is absent from many scans. A net that never
# finds any is right for 97 % of the pixels. This notebook shows what helps: patches that hold the rare class, and a
# Dice loss.
#
# The scans are drawn. They have layers, a foveal pit, shadows of vessels and speckle, and other places that are as
# dark as fluid.

# %%
import numpy as np

import septa
from septa.synthetic import draw_oct, write_dataset

scans = [draw_oct(192, 256, seed=0, index=index) for index in range(3)]
septa.plot.panels([one.image_cyx for one in scans], [(one.labels_yx > 0).astype(np.uint8) for one in scans], size=3.5)

# %%
_ = write_dataset("oct", "oct", 40, (192, 256), seed=0, held_out=4)
share = np.mean([(draw_oct(192, 256, 0, index).labels_yx > 0).mean() for index in range(40)])
print(f"fluid covers {share:.1%} of the pixels")

# %% [markdown]
# ## The recipe that septa chooses
#
# `sampling.rare_share` is the share of patches that are centred on a pixel of a rare class.

# %%
# !septa recipe oct | grep -E "rare_share|dice|cross_entropy|class_weights|patch"

# %%
quick = ["training.steps=250", "net.width=8", "net.depth=4", "training.batch=4", "sampling.patch=[128, 128]"]
model = septa.train("oct", "oct.septa", overrides=quick, callback=septa.progress())
model

# %%
septa.plot.curves("oct-run")

# %% [markdown]
# ## Look at scans that were held out

# %%
from pathlib import Path

from septa.images import read_labels

paths = sorted(Path("oct/held_out/images").iterdir())
images = [septa.read_image(path) for path in paths]
truth = [read_labels(path.parents[1] / "labels" / path.name).array // 255 for path in paths]
found = [model.predict(image) for image in images]
septa.plot.panels(images, truth, found, objects=False, size=3.5)

# %% [markdown]
# ## Score
#
# A scan without fluid in which none is found scores 1; the table of `septa evaluate` says how often that happened.
# Two means therefore belong together: over images, and over all pixels as one.

# %%
evaluation = septa.evaluate(model, "oct/held_out")
print("accuracy of a net that finds nothing:", f"{1 - np.mean([one.mean() for one in truth]):.3f}")
print({name: round(value, 3) for name, value in evaluation.summary.items()})

# %% [markdown]
# ## How much fluid?
#
# The area follows from the labels, the uncertainty from the probabilities.

# %%
for path, one, true in zip(paths, found, truth):
    expected = one.probabilities[1].sum()
    print(f"{path.name}: true {true.sum():5} pixels, labels {one.labels.sum():5}, expected {expected:7.0f}")
