"""The plan of a fine-tuning: what is taken from the parent, what may be changed, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from scipy import ndimage

from septa.data.fingerprint import scan_image
from septa.data.folder import find_pairs, read_pair_image
from septa.errors import ModelError, RecipeError
from septa.images import CLIP, Normalization, combine_values
from septa.labels import LabelMapping
from septa.model import Model, build_net
from septa.recipe import Recipe
from septa.tasks import Decoding, make_task
from septa.training.automatic import RecipeChoice
from septa.training.normalization import inherit_normalization
from septa.training.parent import inherit_decoding, load_parent, match_outputs
from septa.training.plan import TrainingRequest, plan_recipe

Save = Callable[..., Path]
OLD = Path(__file__).resolve().parents[1] / "files" / "v0.1"
OBJECTS = LabelMapping("instances", ("background", "cell"), (0,))
CLASSES = LabelMapping("instances", ("background", "small", "large"), (0, 1, 2))
MASKS = LabelMapping("binary", ("background", "cell"), (0, 255))
NET = ("net.width=4", "net.depth=2", "net.block=residual", "net.dropout=0.1")


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Return a function that saves an untrained model."""

    def save(*overrides: str, labels: LabelMapping = OBJECTS, channels: int = 1, **more: Any) -> Path:
        task = "instances" if labels.kind == "instances" else "semantic"
        recipe = Recipe().with_overrides([*NET, f"task={task}", *overrides])
        torch.manual_seed(3)
        net = build_net(recipe, channels, make_task(recipe, labels).outputs)
        normalization = more.pop("normalization", Normalization("image", clip=CLIP))
        path = tmp_path / "parent.septa"
        model = Model(net=net, channels=channels, labels=labels, normalization=normalization, recipe=recipe, **more)
        model.save(path)
        return path

    return save


def plan(data: Path, start: object, *overrides: str, recipe: Recipe | None = None) -> RecipeChoice:
    given = (f"training.start={start}", *overrides)
    return plan_recipe(
        TrainingRequest(data=data, output=Path("m.septa"), recipe=recipe, overrides=given, device="cpu")
    )[1]


def test_net_values_and_encoding_are_those_of_the_parent_and_the_rest_suits_the_data(save: Save, cells: Path) -> None:
    parent = save("instances.encoding=distance", "instances.rim=5", "data.normalization=asinh", "training.lr=0.1")
    choice = plan(cells, parent)
    own = Model.load(parent).recipe
    assert choice.recipe.net == own.net
    assert choice.recipe.instances == own.instances
    assert choice.recipe.data.normalization == "asinh"
    for key in ("net.depth", "net.dropout", "instances.rim", "data.normalization"):
        assert choice.reasons[key] == "as in parent.septa"
    assert choice.recipe.training.lr < Recipe().training.lr
    assert choice.recipe.training.warmup < Recipe().training.warmup
    assert {"training.lr", "training.warmup"} < choice.reasons.keys()
    assert choice.recipe.loss.border_weight == 0  # that of the encoding, not of the automatic one
    assert choice.recipe.sampling.patch == (64, 64)
    assert choice.parent is not None
    start = "start: parent.septa (sha256 {}): the net of depth 2 and width 4 and its weights are kept"
    assert choice.notes == (start.format(choice.parent.sha256[:12]),)


def test_a_largest_diameter_is_that_of_the_parent_for_objects_only(save: Save, cells: Path, data: Path) -> None:
    assert plan(cells, save("data.largest=24")).recipe.data.largest == 24
    assert plan(cells, save("data.largest=24"), "data.largest=null").recipe.data.largest is None
    with pytest.raises(RecipeError, match=r"data\.largest needs objects, but the labels are classes"):
        plan(data, "scratch", "data.largest=24")


def test_objects_that_are_labelled_are_not_dropped_for_their_size(save: Save, cells: Path, tmp_path: Path) -> None:
    parent = save("instances.least_share=0.05", "instances.join_share=2")
    usual = plan(cells, parent).recipe.instances
    assert (usual.least_share, usual.join_share) == (0.05, 2)
    shutil.copytree(cells, tmp_path / "small")
    for path in (tmp_path / "small" / "labels").iterdir():
        labels_yx = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        free_yx = np.argwhere(ndimage.minimum_filter(labels_yx == 0, 5))[:1]
        labels_yx[tuple(free_yx.T)] = labels_yx.max() + 1
        cv2.imwrite(str(path), labels_yx)
    choice = plan(tmp_path / "small", parent)
    assert (choice.recipe.instances.least_share, choice.recipe.instances.join_share) == (0, 2)
    assert choice.reasons["instances.least_share"] == "the labelled objects differ as much in size"
    assert plan(tmp_path / "small", parent, "instances.least_share=0.2").recipe.instances.least_share == 0.2


def test_given_settings_are_kept_where_no_weight_depends_on_them(save: Save, cells: Path) -> None:
    changes = ("net.dropout=0.4", "data.normalization=unit", "training.lr=0.02", "instances.encoding=seam")
    choice = plan(cells, save(), *changes)
    kept = choice.recipe
    assert (kept.net.dropout, kept.data.normalization, kept.training.lr) == (0.4, "unit", 0.02)
    assert kept.instances.encoding == "seam"
    assert not {"net.dropout", "data.normalization", "training.lr", "instances.encoding"} & choice.reasons.keys()
    inverting = ("data.normalization=image", "data.invert_light=true")
    assert plan(cells, save(*inverting)).recipe.data.invert_light
    assert not plan(cells, save(*inverting), "data.normalization=unit").recipe.data.invert_light
    plan(cells, save(), "net.depth=2")  # the same value is no contradiction


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("depth=4", "net.depth is 2 in parent.septa, whose weights the training starts from, not 4"),
        ("net.norm=group", "net.norm is batch in parent.septa, whose weights the training starts from, not group"),
        ("net.reduction=2", "net.reduction is 1 in parent.septa, whose weights the training starts from, not 2"),
    ],
)
def test_other_nets_are_refused_with_a_remedy_that_works(save: Save, cells: Path, change: str, problem: str) -> None:
    with pytest.raises(RecipeError) as error:
        plan(cells, save(), change)
    assert str(error.value) == f"--set {change}: {problem}. Leave it out, or give --from scratch."
    plan(cells, save())
    assert plan(cells, "scratch", change).parent is None


def test_settings_that_a_recipe_leaves_open_are_those_of_the_parent(save: Save, cells: Path) -> None:
    open_recipe = Recipe.from_yaml("training: {lr: 0.03}\nnet: {depth: 2}")
    choice = plan(cells, save("data.normalization=asinh"), recipe=open_recipe)
    assert (choice.recipe.net.width, choice.recipe.data.normalization) == (4, "asinh")
    assert choice.recipe.training.lr == 0.03
    assert choice.recipe.training.warmup == Recipe().training.warmup  # a recipe keeps its schedule
    with pytest.raises(RecipeError, match=r"^recipe: net\.width is 4 in .*Remove net\.width from the recipe, or give"):
        plan(cells, save(), recipe=Recipe.from_yaml("net: {width: 8}"))


def test_published_weights_contradict_a_parent(save: Save, cells: Path) -> None:
    given = ("net.encoder=resnet18", "net.pretrained=x.safetensors")
    with pytest.raises(RecipeError, match=r"^--set net\.encoder=resnet18: net\.encoder is plain in parent\.septa"):
        plan(cells, save(), *given)


def test_quantised_models_are_refused_and_old_models_are_not(cells: Path) -> None:
    with pytest.raises(ModelError) as error:
        plan(cells, OLD / "int8.septa")
    line = "the model was quantised to 8-bit integers, which cannot be trained further. Give the model that it was made"
    assert str(error.value) == f"{OLD / 'int8.septa'}: {line} from."
    assert plan(cells, OLD / "instances.septa").parent is not None


def test_a_parent_that_does_not_exist_is_an_error(cells: Path) -> None:
    with pytest.raises(ModelError, match=r"^nowhere\.septa: .*\. Give a \.septa file"):
        plan(cells, "nowhere.septa")


# Outputs and thresholds ----------------------------------------------------------------------------------------------


def test_outputs_are_kept_by_their_meaning(save: Save) -> None:
    def match(labels: LabelMapping, *overrides: str) -> tuple[int | None, ...]:
        return match_outputs(parent, make_task(Recipe().with_overrides(overrides), labels))

    parent = load_parent(str(save("instances.encoding=border")))
    border = ("task=instances", "instances.encoding=border")
    assert match(OBJECTS, *border) == (0, 1, 2)
    assert match(CLASSES, *border) == (0, 1, 2, None, None)
    assert match(OBJECTS, "task=instances", "instances.encoding=seam") == (None, None)
    assert match(MASKS, "task=semantic") == (None, None)
    parent = load_parent(str(save(labels=MASKS)))
    assert match(MASKS) == (0, 1)
    assert match(MASKS, "net.output=sigmoid", "loss.bce=1", "loss.cross_entropy=0") == (None,)
    assert match(LabelMapping("index", ("a", "b", "c"), (0, 1, 2))) == (None, None, None)


def test_new_outputs_are_named(save: Save, cells: Path, data: Path) -> None:
    assert "its outputs are new" in plan(cells, save(labels=MASKS)).notes[0]
    note = plan(data, save()).notes[0]
    assert note.endswith(
        "its outputs are new, since the labels are classes of pixels; --task instances keeps its outputs"
    )
    kept = plan(data, save(), "task=instances").notes[0]
    assert "outputs" not in kept


def test_adapted_channels_are_named(save: Save, cells: Path) -> None:
    assert "its first convolution is adapted from 3 channels to 1" in plan(cells, save(channels=3)).notes[0]


def test_thresholds_of_the_parent_meet_the_sizes_of_the_new_objects(save: Save) -> None:
    tuned = Decoding(foreground=0.4, seed=0.8, least_pixels=90, reach=20, close_seams=True)
    parent = load_parent(str(save("instances.encoding=border", decoding=tuned)))
    own = Decoding(least_pixels=7, fill_holes=False)
    recipe = Recipe().with_overrides(["task=instances", "instances.encoding=border"])
    kept = inherit_decoding(parent, make_task(recipe, OBJECTS), own)
    assert kept == Decoding(foreground=0.4, seed=0.8, least_pixels=7, fill_holes=False)
    other = make_task(recipe.with_overrides(["instances.encoding=seam"]), OBJECTS)
    assert inherit_decoding(parent, other, own) == own


# Values --------------------------------------------------------------------------------------------------------------


def scan(image_cyx: np.ndarray) -> Any:
    labels_yx = np.zeros(image_cyx.shape[1:], np.int32)
    labels_yx[8:30, 8:30] = 1
    return scan_image("x", image_cyx, labels_yx, classes=2)


def test_values_are_normalised_as_the_parent_saw_them(save: Save, cells: Path) -> None:
    images = [(read_pair_image(pair, 1) // 16).clip(0, 255).astype(np.uint8) for pair in find_pairs(cells).pairs]
    facts = [scan(image_cyx) for image_cyx in images]
    values = combine_values([item.value_facts for item in facts], 1)
    constants = Normalization("dataset", (40.0,), (20.0,))
    recipe = Recipe()
    model = replace(Model.load(save(normalization=constants, training_values=values)), recipe=recipe)
    assert inherit_normalization(model, recipe, facts) == replace(constants, clip=CLIP)
    deep = [scan((image_cyx.astype(np.uint16)) * 257) for image_cyx in images]
    rescaled = inherit_normalization(model, recipe, deep)
    assert rescaled is not None
    assert (rescaled.offset, rescaled.scale) == (pytest.approx((40 * 257,)), pytest.approx((20 * 257,)))
    shifted = [scan(image_cyx.astype(np.uint16) * 9 + 30000) for image_cyx in images]
    assert inherit_normalization(model, recipe, shifted) is None
    color = [scan(np.concatenate([image_cyx] * 3)) for image_cyx in images]
    assert inherit_normalization(model, recipe, color) is None
    assert inherit_normalization(model, recipe.with_overrides(["data.normalization=unit"]), facts) is None
    by_image = replace(model, normalization=Normalization("image", curve=7.0))
    assert inherit_normalization(by_image, recipe, color) == Normalization("image", curve=7.0, clip=CLIP)
