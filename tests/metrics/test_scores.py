"""Evaluation: image means, pooled values, intervals, and what is printed."""

import json
import statistics
from io import StringIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rich.console import Console

from septa.errors import InputError
from septa.metrics.scores import HEADERS, evaluate_labels

NAMES = ("background", "nucleus", "debris")


def image(seed, classes=3, shape=(9, 11), wrong=0.2):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, shape, dtype=np.int32)
    prediction = np.where(rng.random(shape) < wrong, rng.integers(0, classes, shape), truth).astype(np.int32)
    return f"image{seed}", truth, prediction


def loop_dice(truth, prediction, k):
    pairs = [(t, p) for t, p in zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True) if t != -1]
    both = sum(t == k and p == k for t, p in pairs)
    either = sum((t == k) + (p == k) for t, p in pairs)
    return 2 * both / either if either else 1.0


def printed(evaluation, width=80):
    console = Console(file=StringIO(), width=width)
    console.print(evaluation.table())
    return console.file.getvalue()


def test_means_and_pooled_values():
    items = [image(0), image(1, wrong=0.5), ("big", *image(2, shape=(40, 50), wrong=0.8)[1:])]
    items[1][1][:4] = -1
    evaluation = evaluate_labels(iter(items), list(NAMES))
    assert evaluation.class_names == NAMES
    assert [scores.name for scores in evaluation.images] == ["image0", "image1", "big"]
    truth = np.concatenate([truth.ravel() for _, truth, _ in items])
    prediction = np.concatenate([prediction.ravel() for _, _, prediction in items])
    for k, name in enumerate(NAMES):
        each = [loop_dice(truth, prediction, k) for _, truth, prediction in items]
        assert [scores.classes[name]["dice"] for scores in evaluation.images] == each
        assert evaluation.classes[name]["dice"]["mean"] == pytest.approx(statistics.fmean(each))
        assert evaluation.pooled[name]["dice"] == loop_dice(truth, prediction, k)
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
    assert "foreground" in printed(evaluation)


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
    values = evaluate_labels([image(1), image(0)], NAMES).to_json()
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
    text = " ".join(printed(evaluation).split())
    assert "scores 1.0 there" in text
    assert "Absent from both: nucleus in 2, debris in 1 of 2 images" in text


def test_image_without_counted_pixel_is_in_no_mean():
    ignored = np.full((4, 4), -1)
    half = np.array([[0, 1, 1, 1]]), np.array([[0, 0, 1, 1]])
    evaluation = evaluate_labels([("void", ignored, ignored), ("half", *half)], NAMES[:2])
    assert evaluation.unscored == ("void",)
    assert [scores.name for scores in evaluation.images] == ["void", "half"]
    assert evaluation.classes["nucleus"]["dice"] == {"mean": 0.8, "low": 0.8, "high": 0.8}
    assert evaluation.summary["pixel_error"] == 0.25
    assert evaluation.both_empty == {"background": 0, "nucleus": 0}
    text = " ".join(printed(evaluation).split())
    assert "Mean over 1 image," in text
    assert "1 more without any counted pixel" in text


def test_table_shows_mean_interval_and_pooled_in_80_columns():
    evaluation = evaluate_labels([image(seed, wrong=seed / 10) for seed in range(6)], NAMES)
    text = printed(evaluation)
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
    assert "[red]cell" in printed(evaluate_labels([image(0, classes=2)], ["background", "[red]cell"]))


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
        evaluate_labels([image(0), ("bad/cell 7", truth, prediction)], NAMES)
    message = str(caught.value)
    assert message.startswith("bad/cell 7: ")
    assert problem in message
    assert "background, nucleus, debris" in message
    assert "\n" not in message


def test_errors_of_the_items_themselves_pass_through():
    def items():
        yield image(0)
        raise ValueError("not about an image")

    with pytest.raises(ValueError, match="not about an image"):
        evaluate_labels(items(), NAMES)


@pytest.mark.parametrize(
    ("names", "multilabel"), [(["background"], False), (["background", "cell", "cell"], False), ([], True)]
)
def test_class_names_are_checked(names, multilabel):
    with pytest.raises(InputError, match="different names"):
        evaluate_labels([image(0, classes=2)], names, multilabel=multilabel)


def test_nothing_to_score_is_an_input_error():
    with pytest.raises(InputError, match="there is no image"):
        evaluate_labels([], NAMES)
    with pytest.raises(InputError, match="ignore label"):
        evaluate_labels([("a", np.full((2, 2), -1), np.zeros((2, 2), int))], NAMES)
