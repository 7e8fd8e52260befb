"""Samples depend on seed and number only, and agree with patches that are cut from known pixels."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from septa.data import samples
from septa.data.folder import Pair, find_pairs
from septa.data.samples import Batch, Examples, Loader, Sampler
from septa.errors import InputError
from septa.images.normalize import Normalization
from septa.images.resize import resize_image, resize_labels
from septa.images.write import write_image, write_labels
from septa.labels.mapping import LabelMapping
from septa.recipe import Recipe
from septa.tasks.instances import Instances
from septa.tasks.semantic import Semantic

INDEX = LabelMapping("index", ("background", "one"), (0, 1), None)
PLAIN = Normalization("dataset", (0.0,), (1.0,))
STILL = (
    "augment.flip=false",
    "augment.turn=false",
    "augment.rotate=0",
    "augment.scale=[1, 1]",
    "augment.elastic=0",
    "augment.brightness=0",
    "augment.contrast=0",
    "augment.gamma=[1, 1]",
    "augment.blur=0",
    "augment.noise=0",
)


def write_pairs(folder: Path, count: int = 5, size: tuple[int, int] = (40, 50)) -> tuple[Pair, ...]:
    """Write images whose pixels are all unique in the dataset, and labels with a small block of class 1."""
    for index in range(count):
        pixels = np.arange(size[0] * size[1], dtype=np.uint16).reshape(size) + 4000 * index
        labels_yx = np.zeros(size, np.uint8)
        labels_yx[5 : 5 + size[0] // 14, 9 : 9 + size[1] // 14] = 1
        write_image(folder / "images" / f"{index}.png", pixels[None])
        write_labels(folder / "labels" / f"{index}.png", labels_yx)
    return find_pairs(folder).pairs


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pair, ...]:
    return write_pairs(tmp_path_factory.mktemp("data"))


def sampler_of(pairs: tuple[Pair, ...], *overrides: str, **changes: Any) -> Sampler:
    settings = {"labels": INDEX, "channels": 1, "memory": 2**24} | changes
    recipe = Recipe().with_overrides(("sampling.patch=[16, 12]", *overrides))
    return Sampler(Examples(pairs, **settings), PLAIN, recipe)


def take(loader: Loader, count: int) -> list[Batch]:
    batches = loader.batches()
    taken = [next(batches) for _ in range(count)]
    batches.close()
    return taken


def assert_same(first: Any, second: Any) -> None:
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


# The sequence --------------------------------------------------------------------------------------------------------


def test_every_image_occurs_once_in_each_epoch_in_changing_order(pairs: tuple[Pair, ...]) -> None:
    sampler = sampler_of(pairs)
    epochs = [[sampler.image_index(5 * epoch + place) for place in range(5)] for epoch in range(12)]
    assert all(sorted(order) == list(range(5)) for order in epochs)
    assert len({tuple(order) for order in epochs}) > 6


def test_an_epoch_draws_each_image_as_often_as_it_is_repeated(pairs: tuple[Pair, ...]) -> None:
    plain = sampler_of(pairs)
    sampler = replace(plain, repeats=(1, 3, 1, 1, 2))
    assert (plain.epoch, sampler.epoch) == (5, 8)
    orders = [[sampler.image_index(8 * epoch + place) for place in range(8)] for epoch in range(4)]
    assert all(Counter(order) == {0: 1, 1: 3, 2: 1, 3: 1, 4: 2} for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    drawn = [number for number, index in enumerate(orders[0]) if index == 1]
    patches = [sampler.sample(number) for number in drawn]
    assert {patch.name for patch in patches} == {pairs[1].name}
    assert not np.array_equal(patches[0].image_cyx, patches[1].image_cyx)


def test_a_sample_is_a_function_of_seed_and_number_alone(pairs: tuple[Pair, ...]) -> None:
    numbers = list(range(23))
    expected = [sampler_of(pairs).sample(number) for number in numbers]
    backwards = sampler_of(pairs)
    for number in reversed(numbers):
        assert_same(backwards.sample(number), expected[number])
    together = sampler_of(pairs, memory=0)
    with ThreadPoolExecutor(4) as pool:
        for number, result in zip(numbers, pool.map(together.sample, numbers)):
            assert_same(result, expected[number])
    other = [sampler_of(pairs, "seed=1").sample(number) for number in numbers]
    assert not any(np.array_equal(a[0], b[0]) for a, b in zip(expected, other))


def test_patches_of_an_image_differ_between_epochs(pairs: tuple[Pair, ...]) -> None:
    sampler = sampler_of(pairs[:1], *STILL, "sampling.rare_share=0")
    patches = {sampler.sample(number)[0].tobytes() for number in range(20)}
    assert len(patches) > 15


def test_sample_comes_from_the_image_that_it_names(pairs: tuple[Pair, ...]) -> None:
    sampler = sampler_of(pairs, *STILL)
    for number in range(20):
        patch_cyx, labels_yx, _, name = sampler.sample(number)
        assert patch_cyx.shape == (1, 16, 12)
        assert patch_cyx.dtype == np.float32
        assert labels_yx.shape == (16, 12)
        assert labels_yx.dtype == np.int32
        values = patch_cyx.astype(int) - 4000 * int(name)
        assert values.min() >= 0
        assert values.max() < 40 * 50
        y, x = np.divmod(values[0], 50)
        expected_yx = (y >= 5) & (y < 7) & (x >= 9) & (x < 12)
        np.testing.assert_array_equal(labels_yx, expected_yx)


@pytest.mark.parametrize("kind", ["dataset", "image"])
def test_patches_are_normalised_with_constants_of_the_whole(pairs: tuple[Pair, ...], kind: str) -> None:
    normalization = Normalization("dataset", (100.0,), (7.0,)) if kind == "dataset" else Normalization("image", (), ())
    plain = sampler_of(pairs, *STILL)
    sampler = Sampler(plain.examples, normalization, plain.recipe)
    for number in range(5):
        raw_cyx = plain.sample(number)[0]
        whole_cyx = plain.examples[plain.image_index(number)].image_cyx
        expected_cyx = normalization.resolve(whole_cyx).apply(raw_cyx)
        # Exact: the same operations on the same values.
        np.testing.assert_array_equal(sampler.sample(number)[0], expected_cyx)


def test_edges_are_seen_nearly_as_often_as_the_middle(pairs: tuple[Pair, ...]) -> None:
    sampler = sampler_of(pairs[:1], *STILL, "sampling.rare_share=0")
    seen = Counter[int]()
    for number in range(1500):
        seen.update(np.unique(sampler.sample(number)[0].astype(int)).tolist())
    counts_yx = np.array([seen[index] for index in range(2000)]).reshape(40, 50)
    assert counts_yx.min() > 0
    assert counts_yx[0].mean() > 0.3 * counts_yx[18:22].mean()
    assert counts_yx[:, 0].mean() > 0.3 * counts_yx[:, 22:28].mean()


# Rare classes --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rare(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pair, ...]:
    """Pairs in which class 1 covers 0.51 % of the pixels."""
    pairs = write_pairs(tmp_path_factory.mktemp("rare"), count=2, size=(196, 196))
    assert INDEX.encode(samples.read_pair_labels(pairs[0]), "x").mean() == pytest.approx(0.0051, abs=2e-4)
    return pairs


def share_with_class(sampler: Sampler, bit: int, count: int = 400) -> float:
    return float(np.mean([(sampler.sample(number)[1] == bit).any() for number in range(count)]))


def test_rare_share_centres_on_rare_classes(rare: tuple[Pair, ...]) -> None:
    shares = [
        share_with_class(sampler_of(rare, *STILL, "sampling.patch=[32, 32]", f"sampling.rare_share={share}"), 1)
        for share in (0, 0.33, 1)
    ]
    assert shares[0] < 0.1
    assert shares[1] > shares[0] + 0.08
    # Half of the patches are centred on the background, which may hold the class by chance.
    assert 0.42 < shares[2] < 0.7


def test_rare_bits_of_overlapping_classes_are_centred_on(tmp_path: Path) -> None:
    mapping = LabelMapping("multilabel", ("a", "b"), (), None)
    masks_kyx = np.zeros((2, 128, 128), np.uint8)
    masks_kyx[0] = 1
    masks_kyx[1, 60:64, 60:64] = 1
    write_image(tmp_path / "images" / "i.png", np.zeros((1, 128, 128), np.uint8))
    write_image(tmp_path / "labels" / "i.tif", masks_kyx)
    pairs = find_pairs(tmp_path).pairs
    often = sampler_of(pairs, *STILL, "sampling.rare_share=1", labels=mapping)
    never = sampler_of(pairs, *STILL, "sampling.rare_share=0", labels=mapping)
    assert share_with_class(never, 3) < 0.1
    assert 0.4 < share_with_class(often, 3) < 0.7


def test_images_smaller_than_the_patch_and_without_a_class_are_cut(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "i.png", np.full((1, 3, 70), 7, np.uint8))
    write_labels(tmp_path / "labels" / "i.png", np.zeros((3, 70), np.uint8))
    sampler = sampler_of(find_pairs(tmp_path).pairs, *STILL, "sampling.rare_share=1", "sampling.patch=[64, 64]")
    for number in range(20):
        patch_cyx, labels_yx, *_ = sampler.sample(number)
        np.testing.assert_array_equal(patch_cyx, np.full((1, 64, 64), 7))
        assert not labels_yx.any()


# Targets, weight maps and valid nets ---------------------------------------------------------------------------------

LIVELY = ("sampling.patch=[40, 36]", "augment.probability=1", "augment.elastic=3", "augment.rotate=90")
IDS = LabelMapping("instances", ("background", "object"), (0,), 255)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pair, ...]:
    """Pairs with equal image and label values: ids with gaps, cells that touch, and an ignored corner."""
    folder = tmp_path_factory.mktemp("cells")
    for number in range(3):
        y, x = np.indices((61, 73))
        labels_yx = ((y + 2 * number) // 9 * 20 + x // 11 * 2 + 3).astype(np.uint8)
        labels_yx[(y // 4 + x // 5) % 4 == 0] = 0
        labels_yx[40:, 50:] = 255
        write_image(folder / "images" / f"{number}.png", labels_yx[None])
        write_labels(folder / "labels" / f"{number}.png", labels_yx)
    return find_pairs(folder).pairs


def cell_sampler(pairs: tuple[Pair, ...], margin: int = 0, *, task: Any = None, overrides: Any = LIVELY) -> Sampler:
    recipe = Recipe().with_overrides(("loss.border_weight=10", *overrides))
    encode = samples.use_labels_as_target if task is None else partial(task.encode, terms=recipe.loss)
    return Sampler(
        Examples(pairs, IDS, channels=1, memory=2**24, objects=task is not None),
        PLAIN,
        recipe,
        encode=encode,
        margin=margin,
    )


@pytest.mark.parametrize("margin", [0, 1, 8])
def test_targets_lack_a_valid_net_s_margin_and_images_do_not(cells: tuple[Pair, ...], margin: int) -> None:
    cut, seen = record_labels(cell_sampler(cells, margin))
    for number in range(6):
        narrow = cut.sample(number)
        assert narrow.image_cyx.shape == (1, 40, 36)
        assert narrow.target_yx.shape == (40 - 2 * margin, 36 - 2 * margin)
        np.testing.assert_array_equal(narrow.target_yx, seen[-1][margin : 40 - margin, margin : 36 - margin])
        assert narrow.weights_yx is None


def test_targets_show_the_middle_of_the_image(cells: tuple[Pair, ...]) -> None:
    """Image and labels hold equal values, so that a shift by one pixel would be seen."""
    still = cell_sampler(cells, 7, overrides=(*STILL, "augment.turn=true", "augment.flip=true"))
    plain = Sampler(still.examples, PLAIN, still.recipe.with_overrides(["sampling.patch=[41, 33]"]), margin=7)
    for number in range(9):
        image_cyx, target_yx, _, _ = plain.sample(number)
        seen_yx = image_cyx[0, 7:-7, 7:-7].round()
        np.testing.assert_array_equal(target_yx, np.where(seen_yx == 255, -1, seen_yx > 0))


def test_a_valid_net_s_targets_reach_the_edges_and_rare_pixels(tmp_path: Path) -> None:
    """The target is the middle of a patch: it lies anywhere in the image, and on rare pixels as often as requested."""
    labels_yx = np.zeros((120, 120), np.uint8)
    labels_yx[3, 3] = 1
    write_image(tmp_path / "images" / "0.png", np.arange(120 * 120, dtype=np.uint16).reshape(1, 120, 120))
    write_labels(tmp_path / "labels" / "0.png", labels_yx)
    settings = ("sampling.patch=[96, 96]", "sampling.rare_share=1", *STILL)
    recipe = Recipe().with_overrides(settings)
    sampler = Sampler(Examples(find_pairs(tmp_path).pairs, INDEX, channels=1, memory=2**24), PLAIN, recipe, margin=36)
    hits, seen = 0, set()
    for number in range(200):
        image_cyx, target_yx, *_ = sampler.sample(number)
        hits += bool(target_yx.any())
        seen |= set(np.unique(image_cyx[0, 36:-36, 36:-36].astype(int)).tolist())
    # Both classes are equally likely.
    assert 70 <= hits <= 130
    rows = {value // 120 for value in seen}
    assert min(rows) == 0


@pytest.mark.parametrize(("overhang", "allowed"), [(0.0, 0), (0.25, 4)])
def test_patches_reach_as_far_beyond_the_image_as_they_may(
    pairs: tuple[Pair, ...], overhang: float, allowed: int
) -> None:
    """Values encode positions: a patch that reaches beyond the image shows some rows twice."""
    sampler = sampler_of(pairs, *STILL, "sampling.rare_share=0", f"sampling.overhang={overhang}")
    beyond, rows = 0, set()
    for number in range(300):
        image_cyx, _, _, name = sampler.sample(number)
        y = (image_cyx[0, :, 0].round().astype(int) - 4000 * int(name)) // 50
        beyond = max(beyond, len(y) - len(set(y.tolist())))
        rows |= set(y.tolist())
    assert (beyond == 0) if allowed == 0 else (1 <= beyond <= allowed)
    assert rows == set(range(40))


def record_labels(sampler: Sampler) -> tuple[Sampler, list[Any]]:
    """Return the sampler without encoding, and a list that receives the labels of each whole patch."""
    seen: list[Any] = []

    def keep(labels_yx: Any, *, class_of_id: Any) -> tuple[Any, None]:
        seen.append(labels_yx)
        return labels_yx, None

    return replace(sampler, encode=keep), seen


@pytest.mark.parametrize("margin", [0, 10])
def test_weight_maps_are_derived_after_augmentation_from_the_whole_patch(cells: tuple[Pair, ...], margin: int) -> None:
    sampler, task = cell_sampler(cells, margin, task=Instances()), Instances()
    raw, seen = record_labels(sampler)
    differs = 0
    for number in range(5):
        raw.sample(number)
        ids_yx = seen[-1]
        assert ids_yx.max() > 1
        target_yx, weights_yx = task.encode(ids_yx, sampler.recipe.loss)
        assert weights_yx is not None
        inside = (slice(margin, 40 - margin), slice(margin, 36 - margin))
        found = sampler.sample(number)
        np.testing.assert_array_equal(found.target_yx, target_yx[inside])
        np.testing.assert_array_equal(found.weights_yx, weights_yx[inside])
        assert found.weights_yx is not None
        assert found.weights_yx.dtype == np.float32
        # Cells in the margin count: a map from the cut labels alone would differ.
        differs += not np.array_equal(task.encode(ids_yx[inside], sampler.recipe.loss)[1], found.weights_yx)
    assert differs == (0 if margin == 0 else 5)


@pytest.mark.parametrize("task", [None, Instances(), Semantic(2)])
def test_batches_hold_targets_and_weight_maps(cells: tuple[Pair, ...], task: Any) -> None:
    sampler = cell_sampler(cells, 6, task=task)
    (batch,) = take(Loader(sampler, first=2, size=3, stride=3, workers=2), 1)
    expected = [sampler.sample(number) for number in (2, 3, 4)]
    assert batch.image_bcyx.shape == (3, 1, 40, 36)
    np.testing.assert_array_equal(batch.target_byx, [one.target_yx for one in expected])
    assert batch.target_byx.shape == (3, 28, 24)
    if task is None:
        assert batch.weights_byx is None
    else:
        np.testing.assert_array_equal(batch.weights_byx, [one.weights_yx for one in expected])


# The loader ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_loader_keeps_the_sampler_s_order(pairs: tuple[Pair, ...], workers: int) -> None:
    sampler = sampler_of(pairs)
    taken = take(Loader(sampler_of(pairs, memory=0), first=7, size=3, stride=3, workers=workers), 6)
    for place, batch in enumerate(taken):
        expected = [sampler.sample(7 + 3 * place + k) for k in range(3)]
        np.testing.assert_array_equal(batch.image_bcyx, [image_cyx for image_cyx, *_ in expected])
        np.testing.assert_array_equal(batch.target_byx, [labels_yx for _, labels_yx, *_ in expected])
        assert batch.names == tuple(name for *_, name in expected)


def test_two_ranks_partition_the_sequence(pairs: tuple[Pair, ...]) -> None:
    one = take(Loader(sampler_of(pairs), first=8, size=4, stride=4, workers=2), 5)
    ranks = [take(Loader(sampler_of(pairs), first=8 + 2 * rank, size=2, stride=4, workers=2), 5) for rank in range(2)]
    for whole, first, second in zip(one, *ranks):
        np.testing.assert_array_equal(whole.image_bcyx, np.concatenate([first.image_bcyx, second.image_bcyx]))
        assert whole.names == first.names + second.names


def loader_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("septa-loader")]


def test_closing_the_batches_ends_the_threads(pairs: tuple[Pair, ...]) -> None:
    loader = Loader(sampler_of(pairs), first=0, size=2, stride=2, workers=2)
    batches = loader.batches()
    next(batches)
    assert loader_threads()
    assert loader.waited > 0
    batches.close()
    assert not loader_threads()


def test_errors_of_the_threads_surface(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path)
    pairs[2].image.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"2\.png"):
        take(Loader(sampler_of(pairs), first=0, size=1, stride=1, workers=2), 5)
    assert not loader_threads()


# Decoded images ------------------------------------------------------------------------------------------------------


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """List that receives the names of the images as they are decoded."""
    names: list[str] = []
    read = samples.read_pair_image

    def read_and_record(pair: Pair, *given: Any) -> Any:
        names.append(pair.name)
        return read(pair, *given)

    monkeypatch.setattr(samples, "read_pair_image", read_and_record)
    return names


def test_images_are_decoded_once_if_memory_allows(pairs: tuple[Pair, ...], decoded: list[str]) -> None:
    examples = Examples(pairs, INDEX, channels=1, memory=2**24)
    for _ in range(3):
        for index in range(len(examples)):
            assert examples[index].image_cyx[0, 0, 0] == 4000 * index
    assert decoded == [pair.name for pair in pairs]


def test_least_recently_used_image_is_dropped(pairs: tuple[Pair, ...], decoded: list[str]) -> None:
    one = Examples(pairs, INDEX, channels=1, memory=2**24)[0].nbytes
    assert one >= 40 * 50 * (2 + 4)
    decoded.clear()
    examples = Examples(pairs, INDEX, channels=1, memory=2 * one + 64)
    for index in (0, 1, 0, 2, 0, 1, 2):
        assert examples[index].image_cyx[0, 0, 0] == 4000 * index
    assert decoded == ["0", "1", "2", "1", "2"]


@pytest.mark.parametrize("images", [0, 1, 3])
def test_memory_is_never_exceeded_and_decoding_again_changes_nothing(
    pairs: tuple[Pair, ...], decoded: list[str], images: int
) -> None:
    all_kept = Examples(pairs, INDEX, channels=1, memory=2**24)
    memory = images * all_kept[0].nbytes
    examples = Examples(pairs, INDEX, channels=1, memory=memory)
    for number in range(30):
        index = (7 * number) % 5
        example, expected = examples[index], all_kept[index]
        np.testing.assert_array_equal(example.image_cyx, expected.image_cyx)
        np.testing.assert_array_equal(example.labels_yx, expected.labels_yx)
        assert_same(example.spots, expected.spots)
        assert sum(kept.nbytes for kept in examples._kept.values()) <= memory
        assert len(examples._kept) <= images
    assert len(decoded) > 10


def test_spots_lie_on_their_class(pairs: tuple[Pair, ...]) -> None:
    example = Examples(pairs, INDEX, channels=1, memory=0)[0]
    assert len(example.spots) == 2
    for index, spots in enumerate(example.spots):
        assert (example.labels_yx.ravel()[spots] == index).all()
    assert set(example.spots[1]) == set(np.flatnonzero(example.labels_yx == 1))


def test_labels_of_another_size_are_refused(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path)
    write_labels(tmp_path / "labels" / "1.png", np.zeros((40, 49), np.uint8))
    with pytest.raises(InputError, match=r"1\.png: the image has 40 x 50 pixels and its labels have 40 x 49\. "):
        Examples(pairs, INDEX, channels=1, memory=0)[1]


def test_channels_are_fitted_or_refused(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    write_image(tmp_path / "images" / "1.tif", np.arange(2 * 40 * 50, dtype=np.uint16).reshape(2, 40, 50))
    (tmp_path / "images" / "1.png").unlink()
    examples = Examples(find_pairs(tmp_path).pairs, INDEX, channels=3, memory=2**24)
    assert examples[0].image_cyx.shape == (3, 40, 50)
    with pytest.raises(InputError, match=r"1\.tif: the image has 2 channels and the net takes 3\. "):
        examples[1]


def test_examples_of_objects_keep_ids_and_find_spots_on_cells(cells: tuple[Pair, ...]) -> None:
    objects, classes = (Examples(cells, IDS, channels=1, memory=2**24, objects=choice) for choice in (True, False))
    for number in range(3):
        one, other = objects[number], classes[number]
        values_yx = one.image_cyx[0].astype(int)
        np.testing.assert_array_equal(one.labels_yx, np.where(values_yx == 255, -1, values_yx))
        np.testing.assert_array_equal(other.labels_yx, np.clip(one.labels_yx, -1, 1))
        assert len(np.unique(one.labels_yx)) > 20
        assert_same(one.spots, other.spots)
        assert len(one.spots) == 2
        assert (one.labels_yx.ravel()[one.spots[0]] == 0).all()
        assert (one.labels_yx.ravel()[one.spots[1]] > 0).all()


def test_regions_of_class_labels_are_the_objects(pairs: tuple[Pair, ...], tmp_path: Path) -> None:
    labels_yx = np.zeros((40, 50), np.uint8)
    labels_yx[2:5, 3:9] = labels_yx[20:30, 40:] = 1
    write_image(tmp_path / "images" / "i.png", np.zeros((1, 40, 50), np.uint8))
    write_labels(tmp_path / "labels" / "i.png", labels_yx)
    found_yx = Examples(find_pairs(tmp_path).pairs, INDEX, channels=1, memory=0, objects=True)[0].labels_yx
    assert np.unique(found_yx).tolist() == [0, 1, 2]
    np.testing.assert_array_equal(found_yx > 0, labels_yx == 1)
    assert Examples(pairs, INDEX, channels=1, memory=0, objects=True)[0].labels_yx.max() == 1


def test_overlapping_classes_have_no_objects(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "i.png", np.zeros((1, 8, 8), np.uint8))
    write_image(tmp_path / "labels" / "i.tif", np.ones((2, 8, 8), np.uint8))
    pairs = find_pairs(tmp_path).pairs
    with pytest.raises(InputError, match="one plane per class, in which objects may overlap"):
        Examples(pairs, LabelMapping("multilabel", ("a", "b"), ()), channels=1, memory=0, objects=True)[0]


@pytest.mark.parametrize("size", [(30, 35), (122, 150), (61, 73)])
@pytest.mark.parametrize("objects", [False, True])
def test_examples_are_resized_image_and_labels_alike(cells: tuple[Pair, ...], size: Any, objects: bool) -> None:
    examples, plain = (
        Examples(cells, IDS, channels=1, memory=2**24, objects=objects, resize=to) for to in (size, None)
    )
    for number in range(3):
        one, own = examples[number], plain[number]
        assert one.image_cyx.shape == (1, *size)
        assert one.image_cyx.dtype == own.image_cyx.dtype
        assert one.labels_yx.shape == size
        np.testing.assert_array_equal(one.image_cyx, resize_image(own.image_cyx, size))
        np.testing.assert_array_equal(one.labels_yx, resize_labels(own.labels_yx, size))
        # Spots are pixels of the resized labels.
        for label, spots in enumerate(one.spots):
            assert (np.minimum(one.labels_yx, 1).ravel()[spots] == label).all()
            assert spots.size == min(4096, (np.minimum(one.labels_yx, 1) == label).sum())


@pytest.mark.parametrize(("largest", "factor"), [(1e6, 1), (1e-6, 8)])
def test_examples_of_large_objects_are_reduced(cells: tuple[Pair, ...], largest: float, factor: int) -> None:
    examples, plain = (
        Examples(cells, IDS, channels=1, memory=2**24, objects=True, largest=limit) for limit in (largest, None)
    )
    for number in range(3):
        one, own = examples[number], plain[number]
        size = -(-own.labels_yx.shape[0] // factor), -(-own.labels_yx.shape[1] // factor)
        np.testing.assert_array_equal(one.image_cyx, resize_image(own.image_cyx, size))
        np.testing.assert_array_equal(one.labels_yx, resize_labels(own.labels_yx, size))
    # Classes of pixels have no diameters.
    classes = Examples(cells, IDS, channels=1, memory=2**24, largest=largest)[0]
    assert classes.labels_yx.shape == plain[0].labels_yx.shape


def test_resized_examples_give_patches_of_the_resized_image(cells: tuple[Pair, ...]) -> None:
    sampler = cell_sampler(cells, 4, overrides=(*STILL, "sampling.patch=[40, 36]", "sampling.rare_share=0"))
    examples = Examples(cells, IDS, channels=1, memory=2**24, resize=(122, 146))
    large = Sampler(examples, PLAIN, sampler.recipe, margin=4)
    for number in range(6):
        image_cyx, target_yx, _, name = large.sample(number)
        assert image_cyx.shape == (1, 40, 36)
        whole = examples[int(name)]
        # The patch is found unchanged in the enlarged image, and its labels at the same place.
        inside_yx = image_cyx[0, 4:-4, 4:-4].round()
        views = np.lib.stride_tricks.sliding_window_view(np.pad(whole.image_cyx[0], 20, mode="reflect"), (32, 28))
        places = np.argwhere((views == inside_yx).all(axis=(2, 3)))
        labels = np.lib.stride_tricks.sliding_window_view(np.pad(whole.labels_yx, 20, mode="reflect"), (32, 28))
        assert any(np.array_equal(labels[y, x], target_yx) for y, x in places)


def test_images_of_different_sizes_are_resized_to_one(tmp_path: Path) -> None:
    for number, size in enumerate([(20, 30), (41, 17), (64, 64)]):
        write_image(tmp_path / "images" / f"{number}.png", np.full((1, *size), 7 * number, np.uint8))
        write_labels(tmp_path / "labels" / f"{number}.png", np.full(size, number % 2, np.uint8))
    examples = Examples(find_pairs(tmp_path).pairs, INDEX, channels=3, memory=2**24, resize=(33, 31))
    for number in range(3):
        assert examples[number].image_cyx.shape == (3, 33, 31)
        assert (examples[number].image_cyx == 7 * number).all()
        assert (examples[number].labels_yx == number % 2).all()
