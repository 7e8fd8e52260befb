# %% [markdown]
# # Fluid in scans of the retina
#
# Fluid in an OCT scan is dark, covers about one percent of the pixels, and is absent from many scans. A net that never
# finds any is right for 99 % of the pixels. This notebook shows what helps: patches that hold the rare class, and a
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
_ = write_dataset("oct", "oct", 40, (192, 256), seed=0, held_out=8)
share = np.mean([(draw_oct(192, 256, 0, index).labels_yx > 0).mean() for index in range(40)])
print(f"fluid covers {share:.1%} of the pixels")

# %% [markdown]
# ## The recipe that septa chooses
#
# `sampling.rare_share` is the share of patches that are centred on a pixel of a rare class.

# %%
# !septa recipe oct | grep -E "rare_share|dice|cross_entropy|class_weights|patch"

# %% [markdown]
# ## Does it matter?
#
# The first net learns from random patches with cross entropy alone, as in the tutorial that this notebook follows; the
# second one with the recipe above. Everything else is equal.

# %%
quick = ["training.steps=250", "net.width=8", "net.depth=4", "training.batch=4", "sampling.patch=[128, 128]"]
plain = septa.train(
    "oct", "plain.septa", overrides=[*quick, "loss.dice=0", "sampling.rare_share=0"], callback=septa.progress()
)
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
septa.plot.panels(images, truth, found, objects=False, names=[path.stem for path in paths])

# %% [markdown]
# ## Score
#
# Accuracy is the wrong score here, as the first line shows. A scan without fluid in which none is found has a Dice of
# 1, and one in which a single pixel is found has 0, so two values belong together: the mean over scans, and the Dice
# of all pixels as one.

# %%
print(f"accuracy of a net that never finds fluid: {1 - np.mean([one.mean() for one in truth]):.3f}")
print(f"{'':24} {'Dice, mean':>12} {'all pixels':>12} {'precision':>12} {'recall':>12}")
for name, one in {"cross entropy alone": plain, "recipe of septa": model}.items():
    scores = septa.evaluate(one, "oct/held_out")
    pooled = scores.pooled[scores.class_names[1]]
    shown = (scores.summary["dice"], pooled["dice"], pooled["precision"], pooled["recall"])
    print(f"{name:24}", *(f"{value:12.3f}" for value in shown))

# %% [markdown]
# ## How much fluid?
#
# The area follows from the labels, the uncertainty from the probabilities.

# %%
for path, one, true in zip(paths, found, truth):
    expected = one.probabilities[1].sum()
    print(f"{path.name}: true {true.sum():5} pixels, labels {one.labels.sum():5}, expected {expected:7.0f}")
