"""Test the evaluation: image means, pooled values, intervals, and the print_table table."""

import json
import statistics
from io import StringIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rich.console import Console

from septa.display import make_evaluation_table
from septa.errors import InputError
from septa.metrics.objects import IOU_THRESHOLDS, pool, score_objects
from septa.metrics.scores import HEADERS, OBJECT_METRICS, OBJECTS_POLICY, evaluate_labels

NAMES = ("background", "nucleus", "debris")


def draw_image(seed, classes=3, shape=(9, 11), wrong=0.2):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, shape, dtype=np.int32)
    prediction = np.where(rng.random(shape) < wrong, rng.integers(0, classes, shape), truth).astype(np.int32)
    return f"image{seed}", truth, prediction


def compute_dice_by_loop(truth, prediction, k):
    pairs = [(t, p) for t, p in zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True) if t != -1]
    both = sum(t == k and p == k for t, p in pairs)
    either = sum((t == k) + (p == k) for t, p in pairs)
    return 2 * both / either if either else 1.0


def print_table(evaluation, width=80):
    console = Console(file=StringIO(), width=width)
    console.print(make_evaluation_table(evaluation))
    return console.file.getvalue()


def test_means_and_pooled_values():
    items = [draw_image(0), draw_image(1, wrong=0.5), ("big", *draw_image(2, shape=(40, 50), wrong=0.8)[1:])]
    items[1][1][:4] = -1
    evaluation = evaluate_labels(iter(items), list(NAMES))
    assert evaluation.class_names == NAMES
    assert [scores.name for scores in evaluation.images] == ["image0", "image1", "big"]
    truth = np.concatenate([truth.ravel() for _, truth, _ in items])
    prediction = np.concatenate([prediction.ravel() for _, _, prediction in items])
    for k, name in enumerate(NAMES):
        each = [compute_dice_by_loop(truth, prediction, k) for _, truth, prediction in items]
        assert [scores.classes[name]["dice"] for scores in evaluation.images] == each
        assert evaluation.classes[name]["dice"]["mean"] == pytest.approx(statistics.fmean(each))
        assert evaluation.pooled[name]["dice"] == compute_dice_by_loop(truth, prediction, k)
        assert evaluation.pooled[name]["dice"] != pytest.approx(evaluation.classes[name]["dice"]["mean"], abs=0.01)
        for spread in evaluation.classes[name].values():
            assert spread["low"] < spread["mean"] < spread["high"]
    foreground = [evaluation.classes[name]["iou"]["mean"] for name in NAMES[1:]]
    assert evaluation.summary["iou"] == pytest.approx(statistics.fmean(foreground))
    counted = truth != -1
    assert evaluation.pixels["pixel_accuracy"]["pooled"] == np.mean(truth[counted] == prediction[counted])
    errors = [np.mean((truth != prediction)[truth != -1]) for _, truth, prediction in items]
    assert evaluation.pixels["pixel_error"]["mean"] == evaluation.summary["pixel_error"]
    assert evaluation.summary["pixel_error"] == pytest.approx(statistics.fmean(errors))
    assert [scores.pixel_error for scores in evaluation.images] == pytest.approx(errors)
    assert set(evaluation.summary) == {"dice", "iou", "precision", "recall", "pixel_accuracy", "pixel_error"}


def test_multilabel_counts_every_class_as_foreground():
    truth, prediction = np.array([[0b01, 0b11, 0b10, -1]]), np.array([[0b01, 0b01, 0b10, 0b11]])
    evaluation = evaluate_labels([("a", truth, prediction)], ["wall", "lumen"], multilabel=True)
    assert evaluation.multilabel
    assert evaluation.pooled["wall"]["dice"] == 1.0
    assert evaluation.pooled["lumen"] == {"dice": 2 / 3, "iou": 0.5, "precision": 1.0, "recall": 0.5}
    assert evaluation.summary["recall"] == 0.75
    assert evaluation.summary["pixel_error"] == 1 / 6
    assert "foreground" in print_table(evaluation)


@given(
    st.lists(
        st.integers(1, 4).flatmap(
            lambda side: st.tuples(
                hnp.arrays(np.int32, (side, 3), elements=st.integers(-1, 2)),
                hnp.arrays(np.int32, (side, 3), elements=st.integers(0, 2)),
            )
        ),
        min_size=1,
        max_size=4,
    ).filter(lambda pairs: any((truth != -1).any() for truth, _ in pairs)),
    st.randoms(use_true_random=False),
)
def test_json_is_strict_and_independent_of_order(pairs, random):
    items = [(f"image{i}", truth, prediction) for i, (truth, prediction) in enumerate(pairs)]
    text = json.dumps(evaluate_labels(items, NAMES).to_json(), allow_nan=False)
    assert text == json.dumps(json.loads(text), sort_keys=True)
    random.shuffle(items)
    assert json.dumps(evaluate_labels(items, NAMES).to_json()) == text


def test_json_holds_means_pooled_values_and_how_they_were_made():
    values = evaluate_labels([draw_image(1), draw_image(0)], NAMES).to_json()
    assert set(values["classes"]["nucleus"]["dice"]) == {"mean", "low", "high"}
    assert 0 < values["pooled"]["nucleus"]["dice"] < 1
    assert [entry["name"] for entry in values["images"]] == ["image0", "image1"]
    assert values["interval"] == {"level": 0.95, "resamples": 2000, "seed": 0}
    assert "1.0" in values["policy"]


def test_absent_class_scores_one_and_is_reported():
    blank = np.zeros((3, 3), np.int32)
    spotted = blank.copy()
    spotted[0, 0] = 2
    evaluation = evaluate_labels([("blank", blank, blank), ("missed", spotted, blank)], NAMES)
    assert evaluation.images[0].classes["debris"] == dict.fromkeys(HEADERS, 1.0)
    assert evaluation.images[1].classes["debris"] == dict.fromkeys(HEADERS, 0.0)
    assert evaluation.both_empty == {"background": 0, "nucleus": 2, "debris": 1}
    text = " ".join(print_table(evaluation).split())
    assert "scores 1.0;" in text
    assert "Absent from both: nucleus in 2, debris in 1 of 2 images" in text


def test_image_without_counted_pixel_is_in_no_mean():
    ignored = np.full((4, 4), -1)
    half = np.array([[0, 1, 1, 1]]), np.array([[0, 0, 1, 1]])
    evaluation = evaluate_labels([("void", ignored, ignored), ("half", *half)], NAMES[:2])
    assert evaluation.unscored == ("void",)
    assert [scores.name for scores in evaluation.images] == ["void", "half"]
    assert evaluation.classes["nucleus"]["dice"] == {"mean": 0.8}
    assert evaluation.summary["pixel_error"] == 0.25
    assert evaluation.both_empty == {"background": 0, "nucleus": 0}
    text = " ".join(print_table(evaluation).split())
    assert "Mean over 1 image and" in text
    assert "1 more without any counted pixel" in text


def test_table_shows_mean_interval_and_pooled_in_80_columns():
    evaluation = evaluate_labels([draw_image(seed, wrong=seed / 10) for seed in range(6)], NAMES)
    text = print_table(evaluation)
    for name in NAMES:
        assert name in text
        for metric, header in HEADERS.items():
            spread = evaluation.classes[name][metric]
            assert header in text
            assert f"{spread['mean']:.4f}" in text
            assert f"{spread['low']:.4f}–{spread['high']:.4f}" in text
            assert f"pooled {evaluation.pooled[name][metric]:.4f}" in text
    assert f"foreground │        {evaluation.summary['dice']:.4f}" in text
    spread = evaluation.pixels["pixel_error"]
    words = " ".join(text.split())
    assert f"Pixel error: {spread['mean']:.4f} ({spread['low']:.4f}–{spread['high']:.4f}), pooled" in words
    assert "Pixel accuracy:" in words
    assert "Mean over 6 images" in words
    assert "95% bootstrap interval" in words


def test_class_name_is_not_taken_for_markup():
    assert "[red]cell" in print_table(evaluate_labels([draw_image(0, classes=2)], ["background", "[red]cell"]))


# Objects -------------------------------------------------------------------------------------------------------------

#                       found   half found      split in two    missed  merged
TRUTH = np.array([[5, 5, 5, 5, 0, 9, 9, 9, 9, 0, 7, 7, 7, 7, 0, 2, 2, 0, 300, 300, 4, 4, 0]])
FOUND = np.array([[1, 1, 1, 1, 0, 3, 3, 0, 0, 0, 8, 8, 6, 6, 0, 0, 0, 0, 900, 900, 900, 900, 0]])
BLANK = np.zeros_like(TRUTH)
SIDES = NAMES[:2]


def evaluate_objects(*items):
    return evaluate_labels([(str(i), *item) for i, item in enumerate(items)], SIDES, instances=True)


def test_objects_are_scored_by_hand():
    """Score six true and five predicted objects.

    The IoUs of the pairs are 1; 1/2; 1/2 and 1/2, of which one counts; and 1/2 and 1/2.
    """
    evaluation = evaluate_objects((TRUTH, FOUND))
    found = {metric: spread["mean"] for metric, spread in evaluation.objects.items()}
    assert list(found) == list(OBJECT_METRICS)
    tp, true, predicted = 4, 6, 5
    accuracy = [tp / (true + predicted - tp), *[1 / (true + predicted - 1)] * 9]
    f1 = [2 * tp / (true + predicted), *[2 / (true + predicted)] * 9]
    dice = [1, 2 / 3, 2 / 3, 0, 2 / 3, 2 / 3], [1, 2 / 3, 2 / 3, 2 / 3, 2 / 3]
    expected = {
        "f1_50": f1[0],
        "precision_50": tp / predicted,
        "recall_50": tp / true,
        "accuracy_50": accuracy[0],
        "mean_accuracy": statistics.fmean(accuracy),
        "mean_f1": statistics.fmean(f1),
        "panoptic_quality": (1 + 3 * 0.5) / (tp + (predicted - tp) / 2 + (true - tp) / 2),
        "segmentation_quality": (1 + 3 * 0.5) / tp,
        "symmetric_best_dice": min(map(statistics.fmean, dice)),
        "truth_count": true,
        "prediction_count": predicted,
        "count_difference": 1,
        "splits": 1,
        "merges": 1,
    }
    assert found == pytest.approx(expected)
    for metric, spread in evaluation.objects.items():
        assert spread == pytest.approx(dict.fromkeys(("mean", "pooled"), expected[metric]))
        assert evaluation.summary[metric] == spread["mean"]


def test_pixels_of_objects_are_background_and_foreground():
    evaluation = evaluate_objects((TRUTH, FOUND))
    assert evaluation.class_names == SIDES
    plain = evaluate_labels([("0", np.minimum(TRUTH, 1), np.minimum(FOUND, 1))], SIDES)
    assert evaluation.classes == plain.classes
    assert evaluation.pixels == plain.pixels
    assert evaluation.images[0].classes["nucleus"]["recall"] == 14 / 18
    assert evaluation.summary.keys() == plain.summary.keys() | OBJECT_METRICS.keys()
    assert (plain.objects, plain.images[0].objects) == ({}, None)


def test_means_and_pooled_objects_over_images():
    items = [(TRUTH, FOUND), (TRUTH, TRUTH), (BLANK, FOUND), (BLANK, BLANK)]
    evaluation = evaluate_objects(*items)
    scores = [score_objects(*item) for item in items]
    assert [image.objects for image in evaluation.images] == scores
    pooled = pool(scores)["pooled"]
    for name, values in (
        ("mean_accuracy", [one.mean_accuracy for one in scores]),
        ("f1_50", [one.f1[0] for one in scores]),
        ("truth_count", [one.truth_count for one in scores]),
        ("splits", [one.splits for one in scores]),
    ):
        spread = evaluation.objects[name]
        assert spread["mean"] == pytest.approx(statistics.fmean(values))
        assert spread["low"] < spread["mean"] < spread["high"]
    assert evaluation.objects["mean_accuracy"]["pooled"] == pooled["mean_accuracy"]
    assert evaluation.objects["f1_50"]["pooled"] == pooled["f1"][IOU_THRESHOLDS.index(0.5)]
    assert evaluation.objects["truth_count"]["pooled"] == 12
    assert evaluation.objects["count_difference"]["pooled"] == 1 + 0 + 5 + 0


def test_ignored_pixels_are_no_part_of_objects():
    truth = TRUTH.copy()
    truth[0, 5:18] = -1
    evaluation = evaluate_objects((truth, FOUND), (np.full_like(TRUTH, -1), FOUND))
    assert evaluation.unscored == ("1",)
    assert evaluation.objects["truth_count"] == dict.fromkeys(("mean", "pooled"), 3)
    assert evaluation.objects["prediction_count"]["mean"] == 2
    assert evaluation.images[0].objects.pixels == 10
    assert evaluation.images[0].pixel_error == 0
    assert evaluation.objects["recall_50"]["pooled"] == pytest.approx(2 / 3)


def test_json_of_objects_is_strict_and_whole():
    evaluation = evaluate_objects((TRUTH, FOUND), (BLANK, BLANK))
    values = evaluation.to_json()
    text = json.dumps(values, allow_nan=False)
    assert text == json.dumps(json.loads(text), sort_keys=True)
    assert values["objects"]["mean_accuracy"] == evaluation.objects["mean_accuracy"]
    first, second = (image["objects"] for image in values["images"])
    assert first == dict(sorted(score_objects(TRUTH, FOUND).to_json().items()))
    assert len(first["accuracy"]) == len(IOU_THRESHOLDS)
    assert second["panoptic_quality"] == 1.0
    plain = evaluate_labels([draw_image(0)], NAMES).to_json()
    assert plain["objects"] == {}
    assert "objects" not in plain["images"][0]


def test_table_of_objects_stands_above_that_of_pixels():
    evaluation = evaluate_objects((TRUTH, FOUND), (TRUTH, TRUTH))
    text = print_table(evaluation, width=110)
    for metric, title in OBJECT_METRICS.items():
        (row,) = (line for line in text.splitlines() if f" {title} " in line)
        spread = evaluation.objects[metric]
        counts = metric in ("truth_count", "prediction_count", "count_difference", "splits", "merges")
        digits = 1 if counts else 4
        assert f"{spread['mean']:.{digits}f}" in row
        assert f"{spread['low']:.{digits}f}–{spread['high']:.{digits}f}" in row
        assert row.split("│")[-2].strip() == f"{spread['pooled']:.{0 if counts else 4}f}"
    assert text.index("Panoptic quality") < text.index("Dice = F1")
    assert OBJECTS_POLICY in " ".join(text.split())
    assert "Panoptic quality" not in print_table(evaluate_labels([draw_image(0)], NAMES))


# Refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("truth", "prediction", "problem"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), "(2, 3) and (3, 2)"),
        (np.zeros((2, 3), int), np.full((2, 3), 7), "prediction holds 7"),
        (np.zeros((2, 3)), np.zeros((2, 3), int), "float64"),
    ],
)
def test_misfit_names_the_image_and_the_classes(truth, prediction, problem):
    with pytest.raises(InputError) as caught:
        evaluate_labels([draw_image(0), ("bad/cell 7", truth, prediction)], NAMES)
    message = str(caught.value)
    assert message.startswith("bad/cell 7: ")
    assert problem in message
    assert "background, nucleus, debris" in message
    assert "\n" not in message


def test_errors_of_the_items_themselves_pass_through():
    def items():
        yield draw_image(0)
        raise ValueError("not about an image")

    with pytest.raises(ValueError, match="not about an image"):
        evaluate_labels(items(), NAMES)


@pytest.mark.parametrize(
    ("names", "multilabel"), [(["background"], False), (["background", "cell", "cell"], False), ([], True)]
)
def test_class_names_are_checked(names, multilabel):
    with pytest.raises(InputError, match="different names"):
        evaluate_labels([draw_image(0, classes=2)], names, multilabel=multilabel)


def test_nothing_to_score_is_an_input_error():
    with pytest.raises(InputError, match="there is no image"):
        evaluate_labels([], NAMES)
    with pytest.raises(InputError, match="ignore label"):
        evaluate_labels([("a", np.full((2, 2), -1), np.zeros((2, 2), int))], NAMES)
