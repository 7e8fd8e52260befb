"""Scores of label files against label files: pairing of folders, and meaning of values."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import tifffile
from PIL import Image

from septa.errors import InputError
from septa.evaluation import evaluate_files
from septa.images.write import write_image, write_labels
from septa.labels.mapping import LabelMapping
from septa.metrics.scores import evaluate_labels
from septa.recipe import DataSettings

NAMES = ("background", "foreground")


def drawn(seed: int, classes: int = 2) -> np.ndarray:
    """Return labels of 4 x 4 blocks, so that no value looks interpolated."""
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(0, classes, (6, 7)), np.ones((4, 4), int)).astype(np.int32)


def write_folders(root: Path, truth: dict[str, np.ndarray], predictions: dict[str, np.ndarray]) -> tuple[Path, Path]:
    for folder, files in (("predictions", predictions), ("labels", truth)):
        for name, labels in files.items():
            write_labels(root / folder / name, labels)
    return root / "predictions", root / "labels"


# Label files ---------------------------------------------------------------------------------------------------------


def test_files_are_scored_as_their_arrays(tmp_path):
    truth, found = {"a": drawn(0), "b": drawn(1)}, {"a": drawn(2), "b": drawn(3)}
    folders = write_folders(
        tmp_path,
        {f"{name}_mask.png": labels * 255 for name, labels in truth.items()},
        {f"{name}.tif": labels * 255 for name, labels in found.items()},
    )
    evaluation = evaluate_files(*folders)
    expected = evaluate_labels([(name, truth[name], found[name]) for name in "ab"], NAMES)
    assert evaluation == replace(expected, notes=evaluation.notes)
    assert evaluation.notes == (
        "2 pairs of files with the same name",
        "labels: {0, 255} are background and foreground",
    )


def test_every_page_of_a_stack_is_an_image(tmp_path):
    truth, found = np.stack([drawn(k) for k in range(3)]), np.stack([drawn(k + 9) for k in range(3)])
    folders = write_folders(tmp_path, {"s.tif": truth, "t.tif": truth[0]}, {"s.tif": found, "t.tif": found[0]})
    evaluation = evaluate_files(*folders)
    assert [image.name for image in evaluation.images] == ["s#0", "s#1", "s#2", "t"]
    assert evaluation.images[2].pixel_error == np.mean(truth[2] != found[2])
    write_labels(folders[0] / "s.tif", found[:2])
    with pytest.raises(InputError, match=r"the file has 2 pages, but .* has 3\. Give stacks of equal length\.$"):
        evaluate_files(*folders)


def test_instances_are_scored_as_foreground(tmp_path):
    def ids(count: int) -> np.ndarray:
        labels = np.zeros((40, 40), np.int32)
        for k in range(count):
            labels[8 * (k // 4) : 8 * (k // 4) + 5, 8 * (k % 4) : 8 * (k % 4) + 5] = k + 1
        return labels

    truth = {f"{count}.png": ids(count) for count in (9, 12, 17)}
    folders = write_folders(tmp_path, truth, {name: (labels > 0) * 1 for name, labels in truth.items()})
    evaluation = evaluate_files(*folders)
    assert evaluation.class_names == ("background", "object")
    assert evaluation.summary["dice"] == 1.0


def test_colours_are_scored_against_colours_and_against_class_indices(tmp_path):
    colors = np.array([[0, 0, 0], [255, 0, 0], [0, 200, 0]], np.uint8)
    truth, found = drawn(0, 3), drawn(1, 3)
    (tmp_path / "labels").mkdir()
    Image.fromarray(colors[truth]).save(tmp_path / "labels" / "a.png")
    for folder in ("rgb", "index"):
        (tmp_path / folder).mkdir()
    Image.fromarray(colors[found]).save(tmp_path / "rgb" / "a.png")
    mapping = LabelMapping("color", ("background", "red", "green"), tuple(map(tuple, colors[[0, 1, 2]].tolist())))
    # The classes are numbered by their colour's value, so green comes before red.
    order = np.array([0, 2, 1])
    write_labels(tmp_path / "index" / "a.png", mapping.decode(order[found].astype(np.int32)))
    by_color = evaluate_files(tmp_path / "rgb", tmp_path / "labels")
    assert by_color.images[0].pixel_error == np.mean(truth != found)
    assert by_color == evaluate_files(tmp_path / "index", tmp_path / "labels")


def test_values_that_the_labels_lack_are_refused_or_given(tmp_path):
    truth, found = drawn(0), drawn(1)
    truth[:4] = 2
    found[:4, :4] = 3
    folders = write_folders(tmp_path, {"a.png": truth}, {"a.png": found})
    with pytest.raises(InputError, match=r"predictions/a\.png: the label image holds 3, expected only 0, 1, 2\. "):
        evaluate_files(*folders)
    given = evaluate_files(*folders, DataSettings(values=(0, 1, 2, 3)))
    assert given.images[0].pixel_error == np.mean(truth != found)
    ignoring = evaluate_files(*folders, DataSettings(values=(0, 1, 3), ignore_label=2))
    assert ignoring.images[0].pixel_error == np.mean((truth != found)[truth != 2])


def test_sizes_that_differ_name_the_file(tmp_path):
    folders = write_folders(tmp_path, {"a.png": drawn(0)}, {"a.png": drawn(0)[:-1]})
    with pytest.raises(InputError) as caught:
        evaluate_files(*folders)
    problem = "the size is 23 x 28 pixels, but the labels of a are 24 x 28"
    assert str(caught.value) == f"{folders[0] / 'a.png'}: {problem}. Give both in the same size."


def test_large_files_need_leave(tmp_path):
    folders = write_folders(tmp_path, {"a.png": drawn(0)}, {"a.png": drawn(1)})
    assert evaluate_files(*folders, max_pixels=24 * 28).images
    with pytest.raises(InputError, match="--max-pixels 672"):
        evaluate_files(*folders, max_pixels=24 * 28 - 1)


# Objects -------------------------------------------------------------------------------------------------------------


def touching(seed: int) -> np.ndarray:
    """Return ids of square objects, most of which touch another; the ids have gaps."""
    rng = np.random.default_rng(seed)
    ids = 300 + 7 * np.arange(20).reshape(4, 5) * (rng.random((4, 5)) < 0.7)
    return np.kron(np.where(ids > 300, ids, 0), np.ones((6, 6), int)).astype(np.int32)


def hit(truth: np.ndarray, prediction: np.ndarray) -> int:
    """Count the objects that share more than half of their union with a predicted object, by loops."""
    count = 0
    for a in np.unique(truth[truth > 0]):
        for b in np.unique(prediction[prediction > 0]):
            one, other = truth == a, (prediction == b) & (truth != -1)
            count += bool((one & other).sum() / (one | other).sum() > 0.5)
    return count


def test_object_ids_are_scored_as_objects(tmp_path):
    truth = {name: touching(seed) for name, seed in (("a", 0), ("b", 1))}
    moved = {name: np.roll(ids, 1, axis=1) % 299 for name, ids in truth.items()}
    moved["b"][:6] = 0
    folders = write_folders(
        tmp_path, {f"{n}.tif": ids for n, ids in truth.items()}, {f"{n}.png": ids for n, ids in moved.items()}
    )
    ids = DataSettings(encoding="instances")
    evaluation = evaluate_files(*folders, ids, instances=True)
    assert evaluation.class_names == ("background", "object")
    for image in evaluation.images:
        hits = hit(truth[image.name], moved[image.name])
        assert image.objects.tp[0] == hits > 0
        assert image.objects.truth_count == len(np.unique(truth[image.name])) - 1
        assert image.objects.prediction_count == len(np.unique(moved[image.name])) - 1
        assert image.pixel_error == np.mean((truth[image.name] > 0) != (moved[image.name] > 0))
    expected = evaluate_labels([(n, truth[n], moved[n]) for n in "ab"], ("background", "object"), instances=True)
    assert evaluation == replace(expected, notes=evaluation.notes)
    semantic = evaluate_files(*folders, ids)
    assert semantic.objects == {}
    assert semantic.classes == evaluation.classes
    found = evaluate_files(*folders, ids, instances=None)
    assert "task: instances, because labels and predictions number objects" in found.notes
    assert replace(found, notes=()) == replace(evaluation, notes=())


def test_masks_against_object_ids_are_scored_as_pixels_unless_objects_are_asked_for(tmp_path):
    """A mask is not a single object, even if its foreground is 255."""
    truth = {name: touching(seed) for name, seed in (("a.tif", 0), ("b.tif", 1))}
    masks = {name: np.where(np.roll(ids, 1, axis=1) > 0, 255, 0) for name, ids in truth.items()}
    folders, ids = write_folders(tmp_path, truth, masks), DataSettings(encoding="instances")
    found = evaluate_files(*folders, ids, instances=None)
    reason = "task: semantic, because predictions are masks of one value (--task instances scores objects)"
    assert found.notes[-1] == reason
    assert replace(found, notes=()) == replace(evaluate_files(*folders, ids), notes=())
    assert found.objects == {}
    asked = evaluate_files(*folders, ids, instances=True)
    assert asked.objects["prediction_count"]["pooled"] == 2


def test_classes_are_scored_as_pixels_unless_objects_are_asked_for(tmp_path):
    folders = write_folders(tmp_path, {"a.png": drawn(4)}, {"a.png": drawn(5)})
    assert evaluate_files(*folders, instances=None) == evaluate_files(*folders)


@pytest.mark.parametrize("values", [(0, 255), (0, 1, 2)], ids=["binary", "classes"])
def test_objects_of_class_labels_are_their_regions(tmp_path, values):
    """Two touching regions of different classes are two objects; pixels are scored as background and objects."""
    labels, found = drawn(4, len(values)), drawn(5)
    regions = sum(scipy.ndimage.label(labels == k)[1] for k in range(1, len(values)))
    ids = scipy.ndimage.label(found)[0]
    folders = write_folders(tmp_path, {"a.png": np.array(values)[labels]}, {"a.png": ids})
    evaluation = evaluate_files(*folders, instances=True)
    assert evaluation.images[0].objects.truth_count == regions
    assert evaluation.images[0].objects.prediction_count == ids.max()
    assert len(evaluation.class_names) == 2
    both, either = ((labels > 0) & (ids > 0)).sum(), (labels > 0).sum() + (ids > 0).sum()
    assert evaluation.summary["dice"] == pytest.approx(2 * both / either)
    assert evaluation.images[0].pixel_error == np.mean((labels > 0) != (ids > 0))


def test_nothing_found_of_several_classes_scores_nothing(tmp_path):
    folders = write_folders(tmp_path, {"a.png": drawn(4, 4)}, {"a.png": np.zeros((24, 28), int)})
    evaluation = evaluate_files(*folders, instances=True)
    assert evaluation.summary["dice"] == evaluation.summary["mean_accuracy"] == 0


def test_ignored_pixels_count_in_no_object(tmp_path):
    truth, found = touching(2), touching(2)
    left = truth.copy()
    left[:, :12] = 60_000
    found[:, :6] = 5
    folders = write_folders(tmp_path, {"a.tif": left}, {"a.tif": found})
    evaluation = evaluate_files(*folders, DataSettings(encoding="instances", ignore_label=60_000), instances=True)
    objects = evaluation.images[0].objects
    assert objects.truth_count == objects.prediction_count == objects.tp[-1] == len(np.unique(truth[:, 12:])) - 1
    assert objects.pixels == truth[:, 12:].size
    assert evaluation.summary["dice"] == evaluation.summary["mean_accuracy"] == 1.0
    counted = evaluate_files(*folders, DataSettings(encoding="instances"), instances=True)
    assert counted.images[0].objects.tp[-1] < counted.images[0].objects.truth_count


def test_labels_without_objects_are_refused(tmp_path):
    truth = np.random.default_rng(0).integers(0, 2, (2, 24, 28), dtype=np.uint8)
    write_image(tmp_path / "labels" / "a.tif", truth)
    write_labels(tmp_path / "predictions" / "a.tif", drawn(0))
    with pytest.raises(InputError, match=r"labels/a\.tif: the label image has one plane per class, in which objects"):
        evaluate_files(tmp_path / "predictions", tmp_path / "labels", instances=True)
    write_labels(tmp_path / "truth" / "a.tif", drawn(0))
    with pytest.raises(InputError, match=r"labels/a\.tif: "):
        evaluate_files(tmp_path / "labels", tmp_path / "truth", instances=True)


# Ids, empty folders and missing files --------------------------------------------------------------------------------


def numbered(count: int, seed: int) -> np.ndarray:
    """Return ids 1 to n of squares at random places of a grid."""
    grid = np.zeros(48, np.int32)
    grid[np.random.default_rng(seed).choice(48, count, replace=False)] = np.arange(1, count + 1)
    labels = np.kron(grid.reshape(6, 8), np.ones((6, 6), int))
    labels[::6] = labels[:, ::6] = 0
    return labels.astype(np.int32)


TRUTH = {f"{seed}.tif": numbered(9 + 2 * seed, seed) for seed in range(4)}
FOUND = {name: np.where(ids == 3, 0, ids) for name, ids in TRUTH.items()}
RENUMBERED = {
    "as they are": lambda ids: ids,
    "large": lambda ids: np.where(ids > 0, ids.astype(np.uint32) + 70_000, 0),
    "with gaps": lambda ids: np.where(ids > 0, 5 * ids + ids % 3, 0).astype(np.int32),
    "above 255": lambda ids: np.where(ids > 0, ids + 300, 0).astype(np.uint16),
    "on a background of -1": lambda ids: np.where(ids > 0, ids, -1).astype(np.int16),
}


@pytest.mark.parametrize("found", RENUMBERED)
@pytest.mark.parametrize("truth", RENUMBERED)
def test_scores_do_not_depend_on_the_numbers_of_objects(tmp_path, truth, found):
    folders = tmp_path / "predictions", tmp_path / "labels"
    for folder, form, files in zip(folders, (found, truth), (FOUND, TRUTH), strict=True):
        folder.mkdir()
        for name, ids in files.items():
            tifffile.imwrite(folder / name, RENUMBERED[form](ids))
    evaluation = evaluate_files(*folders, instances=None)
    pairs = [(name[:1], TRUTH[name], FOUND[name]) for name in TRUTH]
    expected = evaluate_labels(pairs, ("background", "object"), instances=True)
    assert replace(evaluation, notes=()) == expected
    assert any("septa reads it as background" in note for note in evaluation.notes) == ("-1" in found)
    assert any("septa takes -1 as background" in note for note in evaluation.notes) == ("-1" in truth)


NOTHING = {name: np.zeros_like(ids) for name, ids in TRUTH.items()}


@pytest.mark.parametrize("instances", [None, True])
def test_empty_predictions_or_labels_keep_the_scores_of_objects(tmp_path, instances):
    blind = evaluate_files(*write_folders(tmp_path / "blind", TRUTH, NOTHING), instances=instances)
    assert blind.objects["truth_count"]["pooled"] == sum(ids.max() for ids in TRUTH.values())
    assert blind.objects["f1_50"]["pooled"] == blind.objects["f1_50"]["mean"] == 0
    wrong = evaluate_files(*write_folders(tmp_path / "wrong", NOTHING, FOUND), instances=instances)
    assert wrong.objects["prediction_count"]["pooled"] == sum(ids.max() for ids in TRUTH.values()) - len(TRUTH)
    assert wrong.objects["f1_50"]["pooled"] == 0


def test_two_empty_folders_ask_what_they_hold(tmp_path):
    folders = write_folders(tmp_path, NOTHING, NOTHING)
    for instances in (None, False):
        with pytest.raises(InputError, match=r"labels: ground truth and predictions do not show"):
            evaluate_files(*folders, instances=instances)
    for evaluation in (
        evaluate_files(*folders, instances=True),
        evaluate_files(*folders, DataSettings(values=(0, 1)), instances=None),
    ):
        assert evaluation.summary["dice"] == 1.0
        json.dumps(evaluation.to_json(), allow_nan=False)
    assert evaluate_files(*folders, instances=True).objects["f1_50"]["mean"] == 1.0


@pytest.mark.parametrize("value", [1, 255])
def test_empty_labels_take_the_values_of_masks(tmp_path, value):
    masks = {name: (ids > 0) * value for name, ids in FOUND.items()}
    evaluation = evaluate_files(*write_folders(tmp_path, NOTHING, masks), instances=None)
    assert evaluation.summary["dice"] == 0.0
    read = "all label images are empty, and septa reads the values as in the predictions"
    assert evaluation.notes[-1] == f"note: {tmp_path / 'labels'}: {read}."


def test_missing_files_leave_the_others_scored(tmp_path):
    folders = write_folders(tmp_path, TRUTH, FOUND)
    (folders[0] / "1.tif").unlink()
    (folders[1] / "2.tif").unlink()
    evaluation = evaluate_files(*folders, instances=None)
    assert [image.name for image in evaluation.images] == ["0", "3"]
    assert evaluation.unpaired == ("1 without labels (2.tif)", "1 without prediction (1.tif)")
    assert evaluation.to_json()["unpaired"] == list(evaluation.unpaired)


# Masks ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("true", "predicted"), [(1, 255), (255, 1), (1, 65535)])
def test_masks_are_scored_whatever_the_value_of_their_foreground(tmp_path, true, predicted):
    truth, found = {"a.png": drawn(0), "b.png": drawn(1)}, {"a.png": drawn(2), "b.png": drawn(3)}
    folders = write_folders(
        tmp_path,
        {name: labels * true for name, labels in truth.items()},
        {name: labels * predicted for name, labels in found.items()},
    )
    evaluation = evaluate_files(*folders, instances=None)
    expected = evaluate_labels([(name[:1], truth[name], found[name]) for name in truth], NAMES)
    assert replace(evaluation, notes=()) == expected
    read = f"the mask holds 0 and {predicted}, and septa reads {predicted} as foreground."
    assert evaluation.notes[-1] == f"note: {folders[0] / 'a.png'}, {folders[0] / 'b.png'}: {read}"


def test_a_prediction_of_255_is_foreground_even_if_labels_ignore_255(tmp_path):
    truth, found = drawn(0), drawn(1)
    left = truth.copy()
    left[:4] = 255
    folders = write_folders(tmp_path, {"a.png": left}, {"a.png": found * 255})
    evaluation = evaluate_files(*folders, DataSettings(ignore_label=255))
    assert evaluation.images[0].pixel_error == np.mean((truth != found)[4:])


def test_object_ids_against_masks_are_a_question_with_an_answer(tmp_path):
    folders = write_folders(tmp_path, {name: (ids > 0) * 255 for name, ids in TRUTH.items()}, FOUND)
    with pytest.raises(InputError, match=r"0\.tif: the prediction holds 8 values.* Give --task instances"):
        evaluate_files(*folders, instances=None)
    assert evaluate_files(*folders, instances=True).objects["recall_50"]["mean"] > 0.8


def test_one_region_in_each_prediction_may_be_an_object(tmp_path):
    single = {name: (ids == 1) * 1 for name, ids in TRUTH.items()}
    evaluation = evaluate_files(*write_folders(tmp_path, TRUTH, single), instances=None)
    assert evaluation.objects["prediction_count"]["pooled"] == 4
    assert evaluation.notes[-1].endswith("each prediction is one region of the value 1 (--task semantic scores pixels)")


def test_colours_of_objects_are_scored(tmp_path):
    rng = np.random.default_rng(0)
    for folder, files in (("predictions", FOUND), ("labels", TRUTH)):
        (tmp_path / folder).mkdir()
        for name, ids in files.items():
            colors = np.concatenate([np.zeros((1, 3)), rng.integers(1, 255, (20, 3))]).astype(np.uint8)
            Image.fromarray(colors[ids]).save(tmp_path / folder / f"{name}.png")
    evaluation = evaluate_files(tmp_path / "predictions", tmp_path / "labels", instances=None)
    expected = evaluate_labels([(n, TRUTH[n], FOUND[n]) for n in TRUTH], ("background", "object"), instances=True)
    assert evaluation.objects == expected.objects
