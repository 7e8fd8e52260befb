"""Pairing of folders in every layout, and the split into training and validation."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from septa.data.folder import find_pairs, read_pair_image, read_pair_labels
from septa.data.pairs import Pair, Pairing, PairingError
from septa.data.split import split_pairs
from septa.errors import InputError

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="the folder shared/data beside the checkout is absent")


def put(root: Path, *names: str, pages: int = 1) -> None:
    """Write small images of the named formats."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".tif", ".tiff"):
            stack = np.arange(pages, dtype=np.uint8).reshape(-1, 1, 1) * np.ones((4, 5), np.uint8)
            tifffile.imwrite(path, stack, photometric="minisblack", metadata=None)
        else:
            Image.fromarray(np.zeros((4, 5), np.uint8)).save(path)


def list_pairs(pairing: Pairing) -> dict[str, tuple[str, str]]:
    found = {}
    for pair in pairing.pairs:
        assert isinstance(pair.labels, Path)
        root = pairing.root
        found[pair.name] = (pair.image.relative_to(root).as_posix(), pair.labels.relative_to(root).as_posix())
    return found


def catch_error(root: Path, *names: str, **patterns: str) -> PairingError:
    """Return the error of a folder, which must name exactly these files, all in one line."""
    with pytest.raises(PairingError) as caught:
        find_pairs(root, **patterns)
    error = caught.value
    assert {path.relative_to(root).as_posix() for path in error.reasons} == set(names)
    assert len(names) <= 5
    listed = [f"{path.relative_to(root).as_posix()} ({reason})" for path, reason in error.reasons.items()]
    assert error.problem.endswith(f": {', '.join(listed)}")
    assert all(error.reasons.values())
    assert str(error) == f"{root}: {error.problem}. {error.remedy}."
    assert len(str(error).splitlines()) == 1
    return error


# --- images/ and labels/ -------------------------------------------------------------------------


@pytest.mark.parametrize("folders", [("images", "labels"), ("images", "masks"), ("Images", "Masks")])
def test_two_folders_with_equal_stems(tmp_path: Path, folders: tuple[str, str]) -> None:
    images, labels = folders
    put(tmp_path, f"{images}/b.jpg", f"{images}/a.png", f"{labels}/a.png", f"{labels}/b.bmp")
    pairing = find_pairs(tmp_path)
    assert list_pairs(pairing) == {
        "a": (f"{images}/a.png", f"{labels}/a.png"),
        "b": (f"{images}/b.jpg", f"{labels}/b.bmp"),
    }
    assert pairing.notes[:2] == (f"layout: {images}/ and {labels}/", "pairs: 2")
    assert [pair.group for pair in pairing.pairs] == ["a", "b"]


@pytest.mark.parametrize("suffix", ["_anno", "_mask", "_masks", "_label", "_labels", "_seg", "-mask", "_Label"])
def test_label_stems_with_a_suffix(tmp_path: Path, suffix: str) -> None:
    put(tmp_path, "images/a.png", "images/b.png", f"labels/a{suffix}.png", f"labels/b{suffix}.png")
    assert list_pairs(find_pairs(tmp_path))["b"] == ("images/b.png", f"labels/b{suffix}.png")


def test_an_exact_stem_takes_precedence_over_a_suffix(tmp_path: Path) -> None:
    put(tmp_path, "images/a.png", "images/a_mask.png", "labels/a.png", "labels/a_mask.png")
    assert {name: labels for name, (_, labels) in list_pairs(find_pairs(tmp_path)).items()} == {
        "a": "labels/a.png",
        "a_mask": "labels/a_mask.png",
    }


def test_ome_suffixes_belong_to_the_suffix(tmp_path: Path) -> None:
    put(tmp_path, "images/a.b.ome.tif", "labels/a.b.png")
    assert list(list_pairs(find_pairs(tmp_path))) == ["a.b"]


def test_other_files_are_ignored_with_a_note(tmp_path: Path) -> None:
    put(tmp_path, "images/a.png", "images/.a.png", "labels/a.png", "stray.png")
    put(tmp_path, "images/deep/c.png")
    for name in ("images/Thumbs.db", "images/.DS_Store", "labels/notes.txt", "README.md"):
        (tmp_path / name).write_bytes(b"no image")
    pairing = find_pairs(tmp_path)
    assert list(list_pairs(pairing)) == ["a"]
    notes = "\n".join(pairing.notes)
    for name in (".a.png", "Thumbs.db", ".DS_Store", "notes.txt", "README.md", "stray.png", "deep"):
        assert name in notes


def test_an_image_without_a_known_suffix_is_found_by_its_content(tmp_path: Path) -> None:
    put(tmp_path, "images/a.png", "labels/a.png")
    (tmp_path / "images/a.png").rename(tmp_path / "images/a.dat")
    assert list_pairs(find_pairs(tmp_path)) == {"a": ("images/a.dat", "labels/a.png")}


def test_a_damaged_image_is_paired_and_reported_when_read(tmp_path: Path) -> None:
    put(tmp_path, "images/a.png", "labels/a.png", "images/b.tif", "labels/b.tif")
    (tmp_path / "images/a.png").write_bytes(b"\x89PNG damaged")
    (tmp_path / "labels/b.tif").write_bytes(b"II*\0damaged")
    first, second = find_pairs(tmp_path).pairs
    with pytest.raises(InputError, match=r"images/a\.png"):
        read_pair_image(first)
    with pytest.raises(InputError, match=r"labels/b\.tif"):
        read_pair_labels(second)


def test_incomplete_pairs_name_every_file(tmp_path: Path) -> None:
    put(tmp_path, "images/a.png", "images/b.png", "images/c.png", "labels/a.png", "labels/d_mask.png")
    error = catch_error(tmp_path, "images/b.png", "images/c.png", "labels/d_mask.png")
    assert error.problem.startswith("3 files cannot be paired: ")
    assert "images/b.png (the image has no labels)" in str(error)
    assert "labels/d_mask.png (the labels have no image)" in str(error)


@pytest.mark.parametrize("missing", ["images", "labels"])
def test_one_side_without_files(tmp_path: Path, missing: str) -> None:
    present = "labels" if missing == "images" else "images"
    put(tmp_path, f"{present}/a.png", f"{present}/b.png")
    (tmp_path / missing).mkdir()
    for content, text in ((), "it is empty"), (("0.svg", "1.svg"), "2 .svg files, which septa cannot read"):
        for name in content:
            (tmp_path / missing / name).write_text("{}")
        with pytest.raises(InputError) as caught:
            find_pairs(tmp_path)
        assert caught.value.problem == f"{missing}/ holds no images ({text})"


def test_labels_in_other_folders_are_named_and_can_be_chosen(tmp_path: Path) -> None:
    put(tmp_path, "images/a.png", "masks/old/x.png", "masks/new/x.png")
    with pytest.raises(InputError) as caught:
        find_pairs(tmp_path)
    assert caught.value.problem == "masks/ holds no images (2 folders: new, old)"
    assert "'masks/new/*'" in caught.value.remedy
    put(tmp_path, "masks/cell/a.png")
    assert list_pairs(find_pairs(tmp_path, images="images/*", labels="masks/cell/*")) == {
        "a": ("images/a.png", "masks/cell/a.png")
    }


def test_many_files_are_counted_in_one_line(tmp_path: Path) -> None:
    put(tmp_path, "images/a.png", "labels/a.png", *(f"images/b{k}.png" for k in range(7)))
    with pytest.raises(PairingError) as caught:
        find_pairs(tmp_path)
    assert [path.name for path in caught.value.reasons] == [f"b{k}.png" for k in range(7)]
    assert "images/b4.png (the image has no labels) and 2 more. Give each image" in str(caught.value)
    assert "b5.png" not in str(caught.value)


def test_the_error_keeps_the_pairs_of_the_other_files(tmp_path: Path) -> None:
    put(tmp_path, "images/a.png", "images/b.png", "labels/a.png")
    pairing = catch_error(tmp_path, "images/b.png").pairing
    assert pairing is not None
    assert list_pairs(pairing) == {"a": ("images/a.png", "labels/a.png")}
    (tmp_path / "labels/a.png").rename(tmp_path / "labels/c.png")
    assert catch_error(tmp_path, "images/a.png", "images/b.png", "labels/c.png").pairing is None


def test_control_characters_in_names_are_escaped(tmp_path: Path) -> None:
    put(tmp_path, "images/a\n.png", "images/b.png", "labels/b.png", "x\x1b[2J.png")
    with pytest.raises(PairingError) as caught:
        find_pairs(tmp_path)
    assert "images/a\\n.png (the image has no labels)" in str(caught.value)
    assert caught.value.pairing is not None
    assert f"ignored in {tmp_path}: x\\x1b[2J.png" in caught.value.pairing.notes


def test_ambiguous_pairs_name_every_file(tmp_path: Path) -> None:
    put(tmp_path, "images/a.png", "labels/a.png", "labels/a_mask.png", "images/z.png", "labels/z.png")
    catch_error(tmp_path, "images/a.png", "labels/a.png", "labels/a_mask.png")
    (tmp_path / "labels/a_mask.png").unlink()
    put(tmp_path, "images/z.tif")
    catch_error(tmp_path, "images/z.png", "images/z.tif", "labels/z.png")


def test_two_label_folders_are_ambiguous(tmp_path: Path) -> None:
    put(tmp_path, "images/a.png", "labels/a.png", "masks/a.png")
    catch_error(tmp_path, "images", "labels", "masks")


def test_numbers_pair_names_that_differ(tmp_path: Path) -> None:
    put(tmp_path, *(f"images/img_{k:02}_raw.png" for k in (1, 10, 11)), *(f"labels/lab{k:02}.png" for k in (1, 10, 11)))
    pairing = find_pairs(tmp_path)
    assert list_pairs(pairing)["img_10_raw"] == ("images/img_10_raw.png", "labels/lab10.png")
    assert "pairing: by the varying part of the names, such as img_01_raw.png with lab01.png" in pairing.notes


def test_other_numbers_are_never_list_pairs(tmp_path: Path) -> None:
    put(tmp_path, "images/s10.png", "images/s11.png", "labels/s20.png", "labels/s21.png")
    catch_error(tmp_path, "images/s10.png", "images/s11.png", "labels/s20.png", "labels/s21.png")


def test_one_image_and_labels_of_another_name(tmp_path: Path) -> None:
    put(tmp_path, "images/a.png", "labels/b.png")
    catch_error(tmp_path, "images/a.png", "labels/b.png")


# --- one flat folder -----------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["_anno", "_mask", "_label", "_seg", "_gt"])
def test_a_flat_folder(tmp_path: Path, suffix: str) -> None:
    put(tmp_path, "train_1.bmp", f"train_1{suffix}.bmp", "train_10.bmp", f"train_10{suffix}.bmp")
    pairing = find_pairs(tmp_path)
    assert list_pairs(pairing) == {
        "train_1": ("train_1.bmp", f"train_1{suffix}.bmp"),
        "train_10": ("train_10.bmp", f"train_10{suffix}.bmp"),
    }
    assert "suffix" in pairing.layout


def test_a_flat_folder_with_suffixes_on_both(tmp_path: Path) -> None:
    put(tmp_path, "a_image.png", "a_mask.png", "b_image.png", "b_mask.png")
    assert list_pairs(find_pairs(tmp_path))["b_image"] == ("b_image.png", "b_mask.png")


def test_an_incomplete_flat_folder(tmp_path: Path) -> None:
    put(tmp_path, "a.bmp", "a_anno.bmp", "b.bmp", "c_anno.bmp")
    catch_error(tmp_path, "b.bmp", "c_anno.bmp")
    put(tmp_path, "b_anno.bmp", "c.bmp", "c_mask.bmp")
    catch_error(tmp_path, "c.bmp", "c_anno.bmp", "c_mask.bmp")


def test_a_flat_folder_of_images_only(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b.png")
    error = catch_error(tmp_path, "a.png", "b.png")
    assert "x_mask.png" in error.remedy


# --- stacks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "labels"),
    [("train-volume.tif", "train-labels.tif"), ("raw.tif", "raw_masks.tif"), ("labels_v2.tif", "images_v2.tif")],
)
def test_two_stacks(tmp_path: Path, image: str, labels: str) -> None:
    if "label" in image:
        image, labels = labels, image
    put(tmp_path, image, labels, pages=30)
    pairing = find_pairs(tmp_path)
    stem = Path(image).stem
    assert [pair.name for pair in pairing.pairs] == [f"{stem}#{page}" for page in range(30)]
    for page, pair in enumerate(pairing.pairs):
        assert (pair.image.name, pair.labels, pair.page) == (image, tmp_path / labels, page)
    assert read_pair_image(pairing.pairs[7]).max() == read_pair_labels(pairing.pairs[7]).array.max() == 7
    groups = [pair.group for pair in pairing.pairs]
    assert len(set(groups)) == 10
    assert all(groups[k] == groups[k // 3 * 3] for k in range(30))
    assert "pairs: 30 (pages of 1 stack)" in pairing.notes
    assert any("runs of 3" in note for note in pairing.notes)


def test_stacks_in_two_folders_stay_whole_when_there_are_enough(tmp_path: Path) -> None:
    put(tmp_path, *(f"{folder}/{k}.tif" for folder in ("images", "labels") for k in range(5)), pages=3)
    pairing = find_pairs(tmp_path)
    assert [pair.name for pair in pairing.pairs[:4]] == ["0#0", "0#1", "0#2", "1#0"]
    assert [pair.group for pair in pairing.pairs] == [str(k // 3) for k in range(15)]


def test_stacks_of_different_length(tmp_path: Path) -> None:
    put(tmp_path, "images/a.tif", "images/b.tif", "labels/b.tif", pages=3)
    put(tmp_path, "labels/a.tif", pages=4)
    error = catch_error(tmp_path, "images/a.tif", "labels/a.tif")
    assert "images/a.tif (the image file has 3 pages)" in str(error)
    assert "labels/a.tif (the label file has 4 pages)" in str(error)


def test_a_third_stack_is_incomplete(tmp_path: Path) -> None:
    put(tmp_path, "train-volume.tif", "train-labels.tif", "test-volume.tif", pages=2)
    catch_error(tmp_path, "test-volume.tif")


# --- one folder per image ------------------------------------------------------------------------


def put_objects(root: Path, name: str, masks: Sequence[np.ndarray]) -> None:
    put(root, f"{name}/images/{name}.png")
    (root / name / "masks").mkdir()
    for k, mask in enumerate(masks):
        Image.fromarray(mask).save(root / name / "masks" / f"{k:02}.png")


def test_one_folder_per_image(tmp_path: Path) -> None:
    masks = np.zeros((4, 4, 5), np.uint8)
    masks[0, :2, :3] = masks[1, 1:3, 2:4] = masks[2, 0, 0] = masks[3, 3, 4] = 255
    put_objects(tmp_path, "n1", masks)
    put_objects(tmp_path, "n2", masks[:1])
    pairing = find_pairs(tmp_path)
    assert [pair.name for pair in pairing.pairs] == ["n1", "n2"]
    assert pairing.pairs[0].labels == tuple(tmp_path / "n1" / "masks" / f"{k:02}.png" for k in range(4))
    expected = [[1, 1, 1, 0, 0], [1, 1, 1, 2, 0], [0, 0, 2, 2, 0], [0, 0, 0, 0, 3]]
    raw = read_pair_labels(pairing.pairs[0])
    assert (raw.kind, raw.array.tolist()) == ("index", expected)


def test_folders_per_image_that_are_incomplete(tmp_path: Path) -> None:
    mask = np.full((4, 5), 255, np.uint8)
    put_objects(tmp_path, "n1", [mask])
    put_objects(tmp_path, "n2", [])
    put_objects(tmp_path, "n3", [mask, mask])
    (tmp_path / "n3/images/n3.png").unlink()
    put_objects(tmp_path, "n4", [mask])
    put(tmp_path, "n4/images/other.png")
    names = ("n2/images/n2.png", "n3/masks/00.png", "n3/masks/01.png", "n4/images/n4.png", "n4/images/other.png")
    assert "it is one of 2 images in one folder" in catch_error(tmp_path, *names).reasons.values()


def test_masks_of_one_object_are_checked(tmp_path: Path) -> None:
    smooth = np.full((4, 5), 255, np.uint8)
    smooth[0] = 128
    put_objects(tmp_path, "n1", [np.zeros((4, 5), np.uint8), smooth])
    with pytest.raises(InputError, match=r"01\.png: the mask holds the values 128 to 255"):
        read_pair_labels(find_pairs(tmp_path).pairs[0])
    Image.fromarray(np.ones((5, 5), np.uint8)).save(tmp_path / "n1/masks/01.png")
    with pytest.raises(InputError, match=r"01\.png: the mask has 5 x 5 pixels .* 4 x 5\. "):
        read_pair_labels(find_pairs(tmp_path).pairs[0])


def test_folders_that_hold_several_datasets(tmp_path: Path) -> None:
    put(tmp_path, *("/".join(part) for part in product(["train", "test"], ["images", "labels"], ["a.png", "b.png"])))
    with pytest.raises(InputError, match=r"several datasets \(test, train\)"):
        find_pairs(tmp_path)


# --- patterns ------------------------------------------------------------------------------------


def test_patterns_with_equal_stems(tmp_path: Path) -> None:
    put(tmp_path, "raw/a.png", "raw/b.png", "gt/a_mask.png", "gt/b_mask.png", "gt/c.txt.png")
    pairing = find_pairs(tmp_path, images="raw/*.png", labels=str(tmp_path / "gt/*_mask.png"))
    assert list_pairs(pairing) == {"a": ("raw/a.png", "gt/a_mask.png"), "b": ("raw/b.png", "gt/b_mask.png")}
    assert pairing.layout == "patterns"


def test_patterns_may_name_folders_and_overlap(tmp_path: Path) -> None:
    put(tmp_path, "x/a.png", "x/b.png", "y/a.png", "y/b.png", "z/c.png", "z/c_seg.png")
    assert list(list_pairs(find_pairs(tmp_path, images="x", labels="y"))) == ["a", "b"]
    assert list_pairs(find_pairs(tmp_path, images="z/*", labels="z/*_seg*")) == {"c": ("z/c.png", "z/c_seg.png")}


def test_patterns_paired_by_the_varying_part(tmp_path: Path) -> None:
    put(tmp_path, *(f"{k}_training.png" for k in (21, 22, 30)), *(f"gold/{k}_manual1.png" for k in (21, 22, 30)))
    found = list_pairs(find_pairs(tmp_path, images="*.png", labels="gold/*.png"))
    assert found["22_training"] == ("22_training.png", "gold/22_manual1.png")
    assert len(found) == 3


def test_patterns_with_equal_names_in_several_folders(tmp_path: Path) -> None:
    put(tmp_path, *(f"{part}/{side}/x.png" for part in ("one", "two") for side in ("em", "truth")))
    found = list_pairs(find_pairs(tmp_path, images="*/em/*.png", labels="*/truth/*.png"))
    assert found == {
        "one_em_x": ("one/em/x.png", "one/truth/x.png"),
        "two_em_x": ("two/em/x.png", "two/truth/x.png"),
    }


def test_patterns_that_fit_no_pairing(tmp_path: Path) -> None:
    put(tmp_path, "a/x.png", "a/y.png", "b/z.png", "b/w.png")
    catch_error(tmp_path, "a/x.png", "a/y.png", "b/z.png", "b/w.png", images="a/*", labels="b/*")
    with pytest.raises(InputError, match=r"c/\*: the pattern matches no image"):
        find_pairs(tmp_path, images="a/*", labels="c/*")
    with pytest.raises(InputError, match="Give both"):
        find_pairs(tmp_path, images="a/*")
    with pytest.raises(InputError, match="only label files"):
        find_pairs(tmp_path, images="a/*", labels="a/*")


# --- folders without a layout -----------------------------------------------------------------------


def test_folders_without_a_layout(tmp_path: Path) -> None:
    def problem_of(path: Path) -> str:
        with pytest.raises(InputError) as caught:
            find_pairs(path)
        assert "images/ and labels/" in caught.value.remedy
        assert "\n" not in str(caught.value)
        return caught.value.problem

    assert "no such folder" in problem_of(tmp_path / "absent")
    assert problem_of(tmp_path) == "the folder is empty"
    (tmp_path / "notes.txt").write_text("x")
    assert problem_of(tmp_path) == "the folder holds no images (1 .txt file, which septa cannot read)"
    assert "not a folder" in problem_of(tmp_path / "notes.txt")
    (tmp_path / "images").mkdir()
    assert "no labels/" in problem_of(tmp_path)
    (tmp_path / "labels").mkdir()
    assert problem_of(tmp_path).startswith("images/ holds no images (")


# --- groups and split ----------------------------------------------------------------------------


def test_groups_by_a_regular_expression(tmp_path: Path) -> None:
    names = ("p1_a", "p1_b", "p2_a", "p2_b", "other")
    put(tmp_path, *(f"{folder}/{name}.png" for folder in ("images", "labels") for name in names))
    pairing = find_pairs(tmp_path, group=r"^(p\d)_")
    assert {pair.name: pair.group for pair in pairing.pairs} == {
        "p1_a": "p1",
        "p1_b": "p1",
        "p2_a": "p2",
        "p2_b": "p2",
        "other": "other",
    }
    assert r"groups: 3 by '^(p\d)_' in the file names (1 without a match)" in pairing.notes
    assert find_pairs(tmp_path, group=r"^p\d").pairs[1].group == "p1"
    with pytest.raises(InputError, match=r"data\.group: '\(' is not a valid regular expression \(at character 1\)\. "):
        find_pairs(tmp_path, group="(")
    with pytest.raises(InputError, match="matches no file name"):
        find_pairs(tmp_path, group="patient")


def make_pairs(groups: Sequence[int]) -> list[Pair]:
    return [
        Pair(name=f"x{k}", image=Path(f"x{k}.png"), labels=None, group=f"g{group}") for k, group in enumerate(groups)
    ]


@given(
    groups=st.lists(st.integers(0, 9), min_size=2, max_size=14).filter(lambda groups: len(set(groups)) > 1),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 99),
    shuffle=st.integers(0, 99),
)
def test_split_is_exact_and_independent_of_order(groups: list[int], share: float, seed: int, shuffle: int) -> None:
    pairs = make_pairs(groups)
    training, validation = split_pairs(pairs, share, seed)
    assert sorted(training + validation, key=lambda pair: pair.name) == sorted(pairs, key=lambda pair: pair.name)
    assert training
    assert validation
    assert not {pair.group for pair in training} & {pair.group for pair in validation}
    sizes = [groups.count(group) for group in set(groups)]
    sums = {sum(s for s, taken in zip(sizes, choice) if taken) for choice in product([0, 1], repeat=len(sizes))}
    best = min(abs(total - share * len(pairs)) for total in sums - {0, len(pairs)})
    assert abs(len(validation) - share * len(pairs)) == best
    mixed = random.Random(shuffle).sample(pairs, len(pairs))
    assert split_pairs(mixed, share, seed) == (training, validation)


def test_split_keeps_similar_images_together() -> None:
    pairs = make_pairs(range(20))
    similar = [["x0", "x1", "absent"], ["x1", "x2"], ["x7", "x9"]]
    sides = set()
    for seed in range(30):
        _, validation = split_pairs(pairs, 0.25, seed, similar)
        names = {pair.name for pair in validation}
        assert len(names) == 5
        for together in ({"x0", "x1", "x2"}, {"x7", "x9"}):
            assert together <= names or not together & names
        sides.add(frozenset(names))
    assert len(sides) > 20


def test_split_draws_all_images_alike() -> None:
    pairs = make_pairs(range(10))
    times = dict.fromkeys((pair.name for pair in pairs), 0)
    for seed in range(300):
        for pair in split_pairs(pairs, 0.2, seed)[1]:
            times[pair.name] += 1
    assert sum(times.values()) == 600
    assert all(30 < count < 95 for count in times.values())


def test_split_of_one_group_is_refused() -> None:
    with pytest.raises(InputError, match="belong together"):
        split_pairs(make_pairs([1, 1, 1]), 0.2, 0)
    with pytest.raises(InputError, match="belong together"):
        split_pairs(make_pairs([1, 2]), 0.2, 0, [["x0", "x1"]])


def test_a_pair_without_labels_is_refused() -> None:
    with pytest.raises(InputError, match=r"x0\.png: the image has no labels"):
        read_pair_labels(make_pairs([1])[0])


@needs_data
@pytest.mark.parametrize(("name", "images"), [("isbi2012", 24), ("glas", 85), ("dsb2018", 372)])
def test_real_folders(name: str, images: int) -> None:
    pairing = find_pairs(SHARED / name)
    assert len(pairing.pairs) == images
    assert all(isinstance(pair.labels, Path) and pair.labels.stem == pair.image.stem for pair in pairing.pairs)
    first = pairing.pairs[0]
    assert read_pair_image(first).shape[1:] == read_pair_labels(first).array.shape
