# %% [markdown]
# # Several classes that overlap
#
# Six shapes on a noisy ground: a pixel may belong to a disk and to a triangle at once. Each class has its own output
# with a sigmoid, trained with BCE and Dice, as in the well-known tutorial on simulated shapes.

# %%
import septa
from septa.synthetic import SHAPE_NAMES, draw_shapes, write_dataset

drawing = draw_shapes(192, 192, seed=0)
septa.plot.grid([drawing.image_cyx, *drawing.masks_kyx], titles=["image", *SHAPE_NAMES], columns=7, size=2)

# %% [markdown]
# ## Labels with a plane for each class
#
# On disk such labels are a TIFF file with the axes `CYX`. septa recognises them by these axes (`data.encoding:
# multilabel`).

# %%
_ = write_dataset("shapes", "shapes", 40, (192, 192), seed=0, held_out=4)

# %%
# !septa check shapes

# %%
quick = ["training.steps=300", "net.width=8", "net.depth=3", "training.batch=4", "sampling.patch=[128, 128]"]
names = ["data.class_names=[" + ", ".join(f'"{name}"' for name in SHAPE_NAMES) + "]"]
model = septa.train("shapes", "shapes.septa", overrides=[*quick, *names], callback=septa.progress())
model

# %%
septa.plot.curves("shapes-run")

# %% [markdown]
# ## Probabilities of each class
#
# `model.probabilities` returns a plane for each class; they need not add up to 1. Labels are bit fields: bit k stands
# for class k.

# %%
from pathlib import Path

path = sorted(Path("shapes/held_out/images").iterdir())[0]
planes_kyx = model.probabilities(path)
septa.plot.grid([septa.read_image(path), *planes_kyx], titles=["image", *SHAPE_NAMES], columns=7, size=2)

# %%
labels_yx = model(path)
for number, name in enumerate(SHAPE_NAMES):
    print(f"{name:16} {((labels_yx >> number) & 1).sum():6} pixels")

# %% [markdown]
# ## Dice and IoU of each class

# %%
evaluation = septa.evaluate(model, "shapes/held_out")
for name, value in evaluation.summary.items():
    if name.startswith(("dice", "iou")):
        print(f"{name:24} {value:.3f}")

# %% [markdown]
# With 40 images and a minute of training the filled figures are good and thin ones less so. `septa reproduce shapes
# --data FOLDER` trains the preset of the tutorial and compares it with the published figures.
