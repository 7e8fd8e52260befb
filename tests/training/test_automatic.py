from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from septa.data.fingerprint import combine_facts, scan_image
from septa.data.label_facts import CORE
from septa.images.write import write_image
from septa.labels.mapping import LabelMapping
from septa.model import Model, build_net
from septa.recipe import Recipe, differences
from septa.runtime import Machine
from septa.synthetic.dataset import draw_cells
from septa.tasks.semantic import Semantic
from septa.training.automatic import RecipeChoice, choose_recipe, choose_workers, resolve_amp
from septa.training.plan import TrainingRequest, plan_recipe
from septa.training.run import train

BINARY = LabelMapping("binary", ("background", "object"), (0, 255), None)
OVERLAPPING = LabelMapping("multilabel", ("a", "b"), (), None)
LAPTOP, GPU = Machine(4, 8 * 2**30, "cpu"), Machine(16, 64 * 2**30, "cuda")
SMALL = Machine(1, 2**28, "cpu")
SIZES = [(1, 1), (3, 90), (9, 9), (17, 200), (64, 64), (37, 250), (256, 256), (513, 700)]


def automatic(
    size: tuple[int, int],
    machine: Machine = LAPTOP,
    mapping: LabelMapping = BINARY,
    *,
    count: int = 4,
    channels: int = 1,
    base: Recipe | None = None,
    cores: tuple[int, int] = (0, 0),
) -> RecipeChoice:
    rng = np.random.default_rng(0)
    facts = []
    for index in range(count):
        labels_yx = np.zeros(size, np.int32)
        labels_yx[: size[0] // 2, : size[1] // 3] = 1
        image_cyx = rng.integers(0, 200, (channels, *size)).astype(np.uint8)
        multilabel = mapping.kind == "multilabel"
        own = scan_image(str(index), image_cyx, labels_yx, classes=mapping.classes, multilabel=multilabel)
        facts.append(replace(own, cores=cores))
    return choose_recipe(combine_facts(facts), facts, mapping, machine, base or Recipe())


def test_sizes_are_those_of_reduced_images() -> None:
    base = Recipe().with_overrides(["task=instances"])
    whole = automatic((1024, 960), base=base.with_overrides(["data.largest=600"])).recipe
    reduced = automatic((1024, 960), base=base.with_overrides(["data.largest=300"])).recipe  # the diameter is 456
    half = automatic((512, 480), base=base).recipe
    assert whole.sampling.patch == (512, 512)
    assert half.sampling.patch == reduced.sampling.patch == (512, 480)
    assert half.instances.rim == reduced.instances.rim


@pytest.mark.parametrize(("norm", "expected"), [("batch", 0.5), ("group", 0.0), ("none", 0.0)])
def test_statistics_of_batch_norm_are_fixed_for_the_second_half(norm: str, expected: float) -> None:
    base = Recipe().with_overrides([f"net.norm={norm}"])
    chosen = automatic((64, 64), base=base)
    assert chosen.recipe.training.freeze_statistics == expected
    assert ("training.freeze_statistics" in chosen.reasons) == (norm == "batch")


@pytest.mark.parametrize(
    ("cores", "output", "expected"),
    [((100, 99), "softmax", CORE), ((100, 98), "softmax", 0), ((0, 0), "softmax", 0), ((100, 99), "sigmoid", 0)],
)
def test_rims_are_wide_unless_they_cut_objects(cores: tuple[int, int], output: str, expected: float) -> None:
    base = Recipe().with_overrides(["task=instances", f"net.output={output}"])
    choice = automatic((64, 64), base=base, cores=cores)
    assert choice.recipe.instances.rim_share == expected
    assert ("99.0 % of the objects" in choice.reasons.get("instances.rim_share", "")) == bool(expected)


@pytest.mark.parametrize("machine", [LAPTOP, GPU, SMALL], ids=["laptop", "gpu", "small"])
@pytest.mark.parametrize("size", SIZES)
def test_choices_fit_together(size: tuple[int, int], machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: True)
    choice = automatic(size, machine)
    recipe = choice.recipe
    multiple = recipe.net.reduction * 2**recipe.net.depth
    assert all(side % multiple == 0 for side in recipe.sampling.patch)
    # The deepest level still has pixels to convolve, and no patch is much larger than the image.
    assert all(side >= 2 * multiple for side in recipe.sampling.patch)
    assert all(side <= max(length + multiple, 2 * multiple) for side, length in zip(recipe.sampling.patch, size))
    assert multiple <= max(2, min(size))
    assert recipe.training.batch >= 1
    assert recipe.training.steps >= 100
    assert 1 <= (recipe.training.workers or 1) <= machine.cores
    assert recipe.training.amp != "auto"
    assert recipe.data.channels == 1


@pytest.mark.parametrize(
    ("cores", "device", "workers"),
    [
        (1, "cpu", 1),
        (15, "cpu", 1),
        (16, "cpu", 2),
        (512, "cpu", 12),
        (1, "cuda", 1),
        (8, "cuda:1", 7),
        (64, "mps", 12),
    ],
)
def test_threads_for_samples_follow_the_cores(cores: int, device: str, workers: int) -> None:
    machine = Machine(cores, 2**33, device)
    assert choose_workers(machine)[0] == workers


@pytest.mark.parametrize("size", [(64, 64), (513, 700)])
@pytest.mark.parametrize("mapping", [BINARY, OVERLAPPING], ids=["binary", "overlapping"])
def test_every_changed_setting_has_a_reason(size: tuple[int, int], mapping: LabelMapping) -> None:
    choice = automatic(size, mapping=mapping)
    changed = {line.partition(":")[0] for line in differences(Recipe(), choice.recipe)}
    changed = {"sampling.patch" if key.startswith("sampling.patch") else key for key in changed}
    assert changed
    assert changed <= choice.reasons.keys()
    assert all(reason and "\n" not in reason for reason in choice.reasons.values())


@pytest.mark.parametrize("size", SIZES)
def test_yaml_with_reasons_loads_as_the_same_recipe(size: tuple[int, int]) -> None:
    choice = automatic(size)
    text = choice.recipe.to_yaml(choice.reasons)
    assert Recipe.from_yaml(text) == choice.recipe
    for reason in choice.reasons.values():
        assert f"# {reason}" in text


def test_overlapping_classes_get_sigmoids() -> None:
    recipe = automatic((64, 64), mapping=OVERLAPPING).recipe
    assert recipe.data.encoding == "multilabel"
    assert recipe.loss.cross_entropy == 0
    assert recipe.loss.bce > 0
    Semantic(2, multilabel=True).check(recipe.loss)
    Semantic(2).check(automatic((64, 64)).recipe.loss)


@pytest.mark.parametrize(("side", "reduction"), [(40, 1), (100, 2), (250, 4)])
def test_large_objects_are_downsampled_and_fit_the_receptive_field(side: int, reduction: int) -> None:
    labels_yx = np.zeros((600, 800), np.int32)
    labels_yx[100 : 100 + side, 200 : 200 + side] = 1
    image_cyx = np.random.default_rng(0).integers(0, 200, (1, 600, 800)).astype(np.uint8)
    facts = [scan_image("a", image_cyx, labels_yx, classes=2)]
    recipe = choose_recipe(combine_facts(facts), facts, BINARY, LAPTOP, Recipe()).recipe
    assert recipe.net.reduction == reduction
    assert build_net(recipe, 1, 2).receptive_field >= side
    assert min(recipe.sampling.patch) >= side


def choose_normalization(images: list[np.ndarray], labels: list[np.ndarray]) -> str:
    facts = [scan_image(str(number), image, own, classes=2) for number, (image, own) in enumerate(zip(images, labels))]
    return choose_recipe(combine_facts(facts), facts, BINARY, LAPTOP, Recipe()).recipe.data.normalization


def draw(seed: int, gain: float = 1, *, objects: bool = True, light: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng, labels_yx = np.random.default_rng(seed), np.zeros((64, 64), np.int32)
    labels_yx[8:24, 8:24] = objects
    image_yx = np.where(labels_yx > 0, 100.0, 10.0) + rng.normal(0, 1, labels_yx.shape)
    return gain * (200 - image_yx if light else image_yx)[None], labels_yx


def test_channels_of_differing_brightness_are_no_uneven_contrast() -> None:
    images, labels = zip(*(draw(seed) for seed in range(4)))
    both = [np.concatenate([image, 300 * image + 50]) for image in images]
    assert choose_normalization(both, list(labels)) == "dataset"
    # One channel that varies between the images suffices.
    uneven = [np.concatenate([image, 4**number * image]) for number, image in enumerate(images)]
    assert choose_normalization(uneven, list(labels)) == "asinh"
    # A grey image counts in each channel.
    assert choose_normalization([np.concatenate([images[0]] * 3), *images[1:]], list(labels)) == "dataset"


def test_images_without_objects_do_not_decide_about_contrast() -> None:
    images, labels = zip(*(draw(seed, objects=seed % 2 == 0) for seed in range(8)))
    assert choose_normalization(list(images), list(labels)) == "dataset"


@pytest.mark.parametrize(
    ("light", "gains", "expected"),
    [
        ((False, False, True, False), (1, 1, 1, 1), ("image", True)),
        ((False, True, True, True), (1, 20, 5, 1), ("asinh", True)),
        ((False, False, False, False), (1, 20, 5, 1), ("asinh", False)),
        ((True, True, True, True), (1, 20, 5, 1), ("image", False)),
    ],
)
def test_light_and_dark_backgrounds_together_are_made_dark(
    light: tuple[bool, ...], gains: tuple[float, ...], expected: tuple[str, bool]
) -> None:
    scenes = [draw(seed, gain, light=own) for seed, (own, gain) in enumerate(zip(light, gains))]
    facts = [scan_image(str(number), *scene, classes=2) for number, scene in enumerate(scenes)]
    choice = choose_recipe(combine_facts(facts), facts, BINARY, LAPTOP, Recipe())
    assert (choice.recipe.data.normalization, choice.recipe.data.invert_light) == expected
    if expected[1]:
        assert choice.reasons["data.invert_light"].startswith(f"of 4 images, {sum(light)} have a light background")
    assert choice.recipe.sampling.balance == (0.5 if expected[1] else 0.0)
    fixed = choose_recipe(
        combine_facts(facts), facts, BINARY, LAPTOP, Recipe(), fixed={"data.normalization"}
    ).recipe.data
    assert (fixed.normalization, fixed.invert_light) == ("dataset", False)


def test_extreme_pixels_do_not_decide_about_contrast() -> None:
    images, labels = zip(*(draw(seed) for seed in range(6)))
    images[0][0, 40:45, 40:45] = 65535
    images[1][0, 50, 50] = 65535
    images[2][0, 55:, :] = -3.4e38
    assert choose_normalization(list(images), list(labels)) == "dataset"


def test_dark_objects_are_never_on_dark_background() -> None:
    scenes = [draw(seed, 3**seed, light=True) for seed in range(4)]
    for image, labels in scenes:
        labels[8:60, 2:60] = 1  # dark objects fill most of the image, so that most pixels are dark
        image[0, 8:60, 2:60] = image[0, 9, 9]
    images, labels = zip(*scenes)
    assert choose_normalization(list(images), list(labels)) == "image"


@pytest.mark.parametrize(
    ("gains", "dark", "expected"),
    [((1, 1), True, "dataset"), ((1, 20, 5), True, "asinh"), ((1, 20, 5), False, "image"), ((3, 3), False, "dataset")],
)
def test_normalisation_follows_contrast_and_background(gains: tuple[int, ...], dark: bool, expected: str) -> None:
    rng, labels_yx = np.random.default_rng(0), np.zeros((64, 64), np.int32)
    labels_yx[8:24, 8:24] = 1
    facts = []
    for number, gain in enumerate(gains):
        bright_yx = np.where(labels_yx > 0, 100.0, 5.0) + rng.normal(0, 1, labels_yx.shape)
        image_yx = gain * (bright_yx if dark else 200 - bright_yx)
        facts.append(scan_image(str(number), image_yx[None].astype(np.float32), labels_yx, classes=2))
    choice = choose_recipe(combine_facts(facts), facts, BINARY, LAPTOP, Recipe())
    assert choice.recipe.data.normalization == expected


@pytest.mark.parametrize(("share", "dice"), [(0.5, False), (0.02, True)])
def test_dice_is_chosen_for_rare_classes(share: float, dice: bool) -> None:
    labels_yx = (np.arange(10_000).reshape(100, 100) < share * 10_000).astype(np.int32)
    facts = [scan_image("a", np.arange(10_000, dtype=np.uint16).reshape(1, 100, 100), labels_yx, classes=2)]
    assert (choose_recipe(combine_facts(facts), facts, BINARY, LAPTOP, Recipe()).recipe.loss.dice > 0) == dice


def test_channels_are_those_of_the_images() -> None:
    recipe = automatic((64, 64), channels=3).recipe
    assert recipe.data.channels == 3
    assert build_net(recipe, 3, 2).in_channels == 3


def test_settings_that_are_not_chosen_keep_their_values() -> None:
    base = Recipe().with_overrides(["seed=5", "training.optimizer=sgd", "augment.flip=false", "loss.bce=0.25"])
    recipe = automatic((64, 64), base=base).recipe
    assert (recipe.seed, recipe.training.optimizer) == (5, "sgd")
    assert not recipe.augment.flip
    assert recipe.loss.bce == 0.25


def test_given_settings_are_kept_and_decide_the_others() -> None:
    labels_yx = (np.arange(512 * 512).reshape(512, 512) % 2).astype(np.int32)
    facts = [scan_image("a", np.arange(512 * 512).reshape(1, 512, 512).astype(np.uint16), labels_yx, classes=2)]

    def given(*overrides: str) -> Recipe:
        fixed = {override.partition("=")[0] for override in overrides}
        base = Recipe().with_overrides(overrides)
        return choose_recipe(combine_facts(facts), facts, BINARY, LAPTOP, base, fixed=fixed, processes=3).recipe

    plain = given("seed=0")
    assert plain.loss.dice == 0
    assert plain.training.batch % 3 == 0
    wide = given("sampling.patch=[64, 64]", "net.depth=2")
    assert (wide.sampling.patch, wide.net.depth) == ((64, 64), 2)
    assert wide.training.batch > plain.training.batch
    only_dice = given("loss.cross_entropy=0")
    assert only_dice.loss.cross_entropy == 0
    assert only_dice.loss.dice > 0


def test_little_memory_makes_small_batches() -> None:
    assert automatic((256, 256), SMALL).recipe.training.batch <= automatic((256, 256)).recipe.training.batch


def test_cell_interiors_between_thin_walls_are_recognised() -> None:
    grid_yx = np.ones((96, 96), np.int32)
    grid_yx[::16] = grid_yx[:, ::16] = 0
    image_cyx = np.random.default_rng(0).integers(0, 200, (1, 96, 96)).astype(np.uint8)
    reason = "background is thin walls (about 1 pixel wide) between regions of object"
    for labels_yx, base, walls in (
        (grid_yx, Recipe(), True),
        (1 - grid_yx, Recipe(), False),
        (grid_yx, Recipe(task="instances"), False),
        (np.minimum(draw_cells(96, 96, 0).labels_yx, 1), Recipe(), False),
    ):
        facts = [scan_image("a", image_cyx, labels_yx, classes=2)]
        choice = choose_recipe(combine_facts(facts), facts, BINARY, LAPTOP, base)
        assert choice.recipe.semantic.walls == walls
        assert choice.reasons.get("semantic.walls", "") == (reason if walls else "")


def test_reasons_are_plain_english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: True)
    cpu = automatic((256, 320), LAPTOP, channels=3).reasons
    del cpu["training.amp"]  # depends on the CPU of this machine
    assert cpu == {
        "data.encoding": "labels: {0, 255} are background and object",
        "data.channels": "the images have 3 channels",
        "data.normalization": "all images have similar contrast (log spread 0.00)",
        "net.reduction": "largest factor for object diameters of 131 (5th percentile) and 131 pixels (median)",
        "net.depth": "the receptive field is 408 pixels; the shorter side of the images has 256",
        "net.width": "the CPU has 4 cores: many steps of a narrow net learn more than few of a wide one",
        "loss.dice": (
            "no class is rare (the smallest has 17% of the pixels): cross entropy alone keeps probabilities calibrated"
        ),
        "sampling.patch": "at most 512 pixels per side; the median image has 256 x 320",
        "training.batch": "0.49 megapixels per step",
        "training.steps": "150 epochs of 4 images with about 1.0 patches each; 1000 to 16000 steps",
        "training.freeze_statistics": "in the second half, batch norm computes what it computes in prediction",
        "training.workers": "the net uses the other cores of the CPU",
    }
    base = Recipe().with_overrides(["net.output=sigmoid", "net.padding=valid", "task=instances"])
    gpu = automatic((256, 320), GPU, base=base).reasons
    assert (
        gpu.items()
        >= {
            "instances.encoding": "the only encoding for a single output",
            "instances.rim": "1/12 of the median object diameter (131 pixels), at most 8",
            "net.reduction": "a net without padding does not downsample its input",
            "net.width": "the device is a GPU (cuda)",
            "loss.cross_entropy": "the net has a single sigmoid output",
            "loss.border_weight": "as in the paper, so that the seams between objects have weight",
            "sampling.patch": (
                "at most 256 pixels per side; the median image has 256 x 320; "
                "and 92 more at each side, which the net removes"
            ),
            "training.amp": "the GPU has bf16 instructions",
            "training.workers": "one less than the 16 cores, at most 12, to feed the GPU",
        }.items()
    )


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_a_given_precision_is_kept(amp: str) -> None:
    assert resolve_amp(amp, "cpu")[0] == amp


# The workflow --------------------------------------------------------------------------------------------------------


def test_overrides_replace_choices_and_have_no_reason(data: Path, tmp_path: Path) -> None:
    overrides = ("net.depth=1", "training.lr=0.5")
    _, choice = plan_recipe(TrainingRequest(data=data, output=tmp_path / "m.septa", overrides=overrides))
    assert choice.recipe.net.depth == 1
    assert choice.recipe.training.lr == 0.5
    assert "net.depth" not in choice.reasons
    assert "net.width" in choice.reasons


def test_a_given_recipe_is_used_unchanged(data: Path, tmp_path: Path) -> None:
    given = Recipe().with_overrides(["task=semantic", "net.depth=3", "training.amp='off'", "training.workers=2"])
    _, choice = plan_recipe(TrainingRequest(data=data, output=tmp_path / "m.septa", recipe=given))
    assert choice.recipe == given
    for amp in ("auto", "bf16"):
        _, choice = plan_recipe(
            TrainingRequest(data=data, output=tmp_path / "m.septa", recipe=given, overrides=(f"training.amp={amp}",))
        )
        assert choice.recipe.training.amp in ("off", "bf16")


def test_printed_recipe_trains_the_same_model(
    command: Callable[..., Any], data: Path, tmp_path: Path, tiny: tuple[str, ...], tiny_options: list[str]
) -> None:
    printed = command("recipe", data, *tiny_options)
    assert printed.code == 0, printed.err
    assert "  # " in printed.out
    path = tmp_path / "recipe.yaml"
    path.write_text(printed.out)
    chosen = train(data, tmp_path / "chosen.septa", overrides=tiny)
    assert (tmp_path / "chosen-run" / "recipe.yaml").read_text() == printed.out
    given = train(data, tmp_path / "given.septa", recipe=path)
    assert given.recipe == chosen.recipe
    # A training is a function of recipe, data and threads, so the weights are equal bit for bit.
    assert given.weights_sha256 == chosen.weights_sha256


def test_overlapping_classes_train(tmp_path: Path, tiny: tuple[str, ...]) -> None:
    rng = np.random.default_rng(0)
    for index in range(4):
        masks_kyx = np.zeros((2, 40, 40), np.uint8)
        masks_kyx[0, 5:25, 5 + index : 25] = 1
        masks_kyx[1, 15:35, 15 + index : 35] = 1
        image_cyx = (rng.normal(50, 10, (1, 40, 40)) + 60 * masks_kyx.sum(0)).clip(0, 255).astype(np.uint8)
        write_image(tmp_path / "data" / "images" / f"{index}.png", image_cyx)
        write_image(tmp_path / "data" / "labels" / f"{index}.tif", masks_kyx)
    model = train(tmp_path / "data", tmp_path / "m.septa", overrides=(*tiny, "training.steps=4"))
    assert model.recipe.loss.bce > 0
    assert Model.load(tmp_path / "m.septa").segment(image_cyx).max() <= 3
