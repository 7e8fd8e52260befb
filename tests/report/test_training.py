from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from septa.images.overlay import ERROR_COLORS
from septa.metrics.objects import align_ids
from septa.metrics.scores import OBJECT_METRICS, OBJECTS_POLICY, Evaluation, evaluate_labels
from septa.recipe import Recipe
from septa.report.gallery import MAX_PANELS, THUMBNAIL, THUMBNAIL_OF_MANY
from septa.report.training import Panel, write_report

HOSTILE = "\"><script>alert(1)</script><img src=https://example.org/x onerror=alert(2)>&'\x00\udcff"
VOID = {"meta", "img", "br", "link", "input", "hr"}


class _Page(HTMLParser):
    """Parser that checks the balance of tags and collects the contents of the page."""

    def __init__(self, markup: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[tuple[str, str]] = []
        self.feed(markup)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"{tag} has an attribute twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append((self.open[-1] if self.open else "", data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def visible(self) -> str:
        return " ".join(data for tag, data in self.words if tag not in {"script", "style"})


def _history(steps: int = 200, classes: tuple[str, ...] = ("cell",)) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    for step in range(1, steps + 1):
        rows.append(
            {
                "step": step,
                "loss": 1 / step + 0.5,
                "lr": 1e-3,
                "images_per_s": 20.0,
                "data_wait": 0.1,
                "minutes": step / 9,
            }
        )
        if step % 20 == 0:
            dice = {f"dice_{name}": 0.8 + 0.1 * i for i, name in enumerate(classes)}
            rows.append({"step": step, "score": 1 - 1 / step, "val_loss": 0.7, **dice})
    return rows


def _panel(name: str, score: float, shape: tuple[int, int] = (12, 20), channels: int = 1, seed: int = 0) -> Panel:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (channels, *shape)).astype(np.uint8)
    truth, prediction = rng.integers(0, 2, (2, *shape)).astype(np.int32)
    return Panel(name, image, truth, prediction, score)


def _evaluation(names: tuple[str, ...] = ("background", "cell"), images: tuple[str, ...] = ("a", "b")) -> Evaluation:
    rng = np.random.default_rng(1)
    items = []
    for name in images:
        truth, other = rng.integers(0, len(names), (2, 30, 30)).astype(np.int32)
        items.append((name, truth, np.where(rng.random((30, 30)) < 0.7, truth, other)))
    return evaluate_labels(items, names)


def _write(folder: Path, **given: Any) -> str:
    values: dict[str, Any] = {
        "title": "a model",
        "command": "septa train data",
        "versions": {"septa": "0.1.0"},
        "recipe_yaml": Recipe().to_yaml({"net.depth": "the reason of the depth"}),
        "fingerprint": {"images": 20, "sizes": {"height": (10, 20, 30)}, "dtype": "uint8"},
        "history": _history(),
        "evaluation": _evaluation(),
        "gallery": [_panel("a", 0.5), _panel("b", 0.25)],
        "notes": ["a note"],
    }
    path = folder / "report.html"
    write_report(path, **values | given)
    return path.read_text(encoding="utf-8")


def _chart(markup: str, title: str) -> str:
    (chart,) = (
        part for part in re.findall(r"<figure class=\"chart\">.*?</figure>", markup, re.DOTALL) if title in part
    )
    return str(chart)


def _points(chart: str) -> list[int]:
    return [len(points.split()) for points in re.findall(r'<polyline points="([^"]*)"', chart)]


def _pictures(markup: str) -> Iterator[Image.Image]:
    for data in re.findall(r'src="data:image/png;base64,([^"]*)"', markup):
        yield Image.open(io.BytesIO(base64.b64decode(data)))


def test_page_stands_alone_and_is_well_formed(tmp_path: Path) -> None:
    markup = _write(tmp_path)
    parsed = _Page(markup)
    assert "http:" not in markup
    assert "https:" not in markup
    assert not parsed.all("link")
    assert not parsed.all("iframe")
    assert all("src" not in attributes for attributes in parsed.all("script"))
    assert all((attributes["src"] or "").startswith("data:image/png;") for attributes in parsed.all("img"))
    assert all((attributes["href"] or "").startswith("#") for attributes in parsed.all("a"))
    assert "url(" not in markup
    assert "@import" not in markup
    targets = {attributes["id"] for attributes in parsed.all("section")}
    assert {(attributes["href"] or "")[1:] for attributes in parsed.all("a")} == targets


def test_page_says_everything(tmp_path: Path) -> None:
    evaluation = _evaluation()
    visible = _Page(_write(tmp_path, evaluation=evaluation)).visible
    spread = evaluation.classes["cell"]["dice"]
    expected = [
        "a model",
        "200 steps in 22 min",
        f"{evaluation.summary['dice']:.3f}",
        f"{spread['low']:.3f}–{spread['high']:.3f}",
        f"{evaluation.pooled['cell']['dice']:.3f}",
        evaluation.policy,
        "Dice = F1",
        "a note",
        "the reason of the depth",
        "septa train data",
        "0.1.0",
        "sizes: height",
        "10, 20, 30",
        "uint8",
        *(name.replace("_", " ") for name in ERROR_COLORS),
    ]
    assert [words for words in expected if words not in visible] == []


def test_hostile_text_is_shown_as_text(tmp_path: Path) -> None:
    evaluation = _evaluation(("background", HOSTILE), (HOSTILE, "b"))
    markup = _write(
        tmp_path,
        title=HOSTILE,
        command=HOSTILE,
        versions={HOSTILE: HOSTILE},
        recipe_yaml=f"{HOSTILE}:  # {HOSTILE}\n",
        fingerprint={HOSTILE: {HOSTILE: [HOSTILE]}},
        history=_history(classes=(HOSTILE, "other")),
        evaluation=evaluation,
        gallery=[_panel(HOSTILE, 0.5)],
        notes=[HOSTILE],
    )
    parsed = _Page(markup)
    harmless = _Page(_write(tmp_path, gallery=[_panel("a", 0.5)], history=_history(classes=("cell", "other"))))
    assert len(parsed.all("script")) == 1
    assert len(parsed.all("img")) == len(harmless.all("img"))
    assert {key for _, attributes in parsed.elements for key in attributes if key.startswith("on")} == set()
    assert parsed.visible.count("<script>alert(1)</script>") >= 12
    assert "\0" not in markup


def test_gallery_is_worst_first(tmp_path: Path) -> None:
    scores = [0.9, float("nan"), 0.1, 1.0, 0.5]
    markup = _write(tmp_path, gallery=[_panel(f"image {score}", score) for score in scores])
    shown = re.findall(r"<h3>image ([^<]*)<", markup)
    assert shown == ["0.1", "0.5", "0.9", "1.0", "nan"]


def test_gallery_shows_at_most_the_worst(tmp_path: Path) -> None:
    count = MAX_PANELS + 6
    markup = _write(tmp_path, gallery=[_panel(f"image {i}", i / count, (300, 30)) for i in reversed(range(count))])
    assert re.findall(r"<h3>image (\d+)<", markup) == [str(i) for i in range(MAX_PANELS)]
    assert f"The worst {MAX_PANELS} of {count} images" in markup
    assert {max(picture.size) for picture in _pictures(markup)} == {THUMBNAIL_OF_MANY}


def test_panel_shows_image_truth_prediction_and_errors(tmp_path: Path) -> None:
    image = np.full((1, 40, 60), 128, np.uint8)
    image[0, :, ::2] = 0
    image[0, ::2] = 255
    truth, prediction = np.zeros((2, 40, 60), np.int32)
    truth[5:20, 5:30] = 1
    prediction[5:20, 15:40] = 1
    before = image.copy(), truth.copy(), prediction.copy()
    markup = _write(tmp_path, gallery=[Panel("one", image, truth, prediction, 0.5)])
    shown = [np.asarray(picture.convert("RGB")).astype(int) for picture in _pictures(markup)]
    assert [picture.shape for picture in shown] == [(40, 60, 3)] * 4
    plain, with_truth, with_prediction, errors = shown
    inside = (slice(6, 19), slice(6, 14))
    assert (plain[..., 0] == plain[..., 2]).all()
    assert np.ptp(with_truth[inside], axis=-1).max() > 0
    assert np.ptp(with_prediction[inside], axis=-1).max() == 0
    assert np.ptp(with_prediction[6:19, 31:39], axis=-1).max() > 0
    assert len({tuple(errors[10, column]) for column in (10, 20, 35, 50)}) == 4
    for old, new in zip(before, (image, truth, prediction), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (900, 500), (385, 384)])
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_any_image_is_shown_within_the_limit(tmp_path: Path, shape: tuple[int, int], channels: int) -> None:
    markup = _write(tmp_path, gallery=[_panel("a", 0.5, shape, channels)])
    pictures = list(_pictures(markup))
    assert len(pictures) == 4
    assert {max(picture.size) for picture in pictures} == {min(THUMBNAIL, max(shape))}
    assert len({picture.size for picture in pictures}) == 1


def test_float_images_and_ignored_pixels_are_shown(tmp_path: Path) -> None:
    panel = _panel("a", 0.5)
    truth = panel.truth_yx.copy()
    truth[:4] = -1
    image = panel.image_cyx.astype(np.float32) * 1e4
    _Page(_write(tmp_path, gallery=[Panel("a", image, truth, panel.prediction_yx, 0.5)]))


def test_panels_of_differing_size_are_refused(tmp_path: Path) -> None:
    panel = _panel("a", 0.5)
    wrong = Panel("the name", panel.image_cyx, panel.truth_yx, panel.prediction_yx[:-1], 0.5)
    with pytest.raises(ValueError, match=r"truth \(12, 20\) and prediction \(11, 20\) of 'the name'"):
        _write(tmp_path, gallery=[wrong])
    assert not (tmp_path / "report.html").exists()


def test_curves_hold_every_value(tmp_path: Path) -> None:
    markup = _write(tmp_path, history=_history(200, ("cell", "wall")), evaluation=None)
    # The lines are the values of each step, the smoothed values, and the validations.
    assert _points(_chart(markup, "Loss")) == [200, 200, 10]
    assert _points(_chart(markup, "Validation score")) == [10, 10, 10]
    assert _points(_chart(markup, "Learning rate")) == [200]
    assert _points(_chart(markup, "Images per second")) == [200, 200]
    assert _points(_chart(markup, "Waiting for data")) == [200, 200]


def test_few_values_are_not_smoothed(tmp_path: Path) -> None:
    markup = _write(tmp_path, history=_history(30))
    assert _points(_chart(markup, "Loss")) == [30, 1]


def test_smoothing_is_a_centred_mean(tmp_path: Path) -> None:
    losses = np.random.default_rng(0).random(100)
    history = [{"step": i, "loss": float(loss)} for i, loss in enumerate(losses)]
    titles = re.findall(r"training: ([\d.e-]+)", _chart(_write(tmp_path, history=history), "Loss"))
    slow = [losses[max(i - 2, 0) : i + 3].mean() for i in range(100)]
    np.testing.assert_allclose([float(value) for value in titles], slow, rtol=1e-3)


def test_values_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    history: list[dict[str, Any]] = _history(30)
    history[3]["loss"] = math.nan
    history[4]["loss"] = math.inf
    history[5]["loss"] = None
    history[6] = {"step": math.nan, "loss": 0.5, "lr": 0.5}
    history[7]["lr"] = np.float32(0.5)
    markup = _write(tmp_path, history=history)
    assert _points(_chart(markup, "Loss")) == [26, 1]
    assert _points(_chart(markup, "Learning rate")) == [29]
    assert not re.search(r'="[^"]*\b(nan|inf)\b', markup.lower())


def test_loss_that_falls_far_is_drawn_logarithmically(tmp_path: Path) -> None:
    far = [{"step": i, "loss": 10.0**-i} for i in range(4)]
    assert "log scale" in _chart(_write(tmp_path, history=far), "Loss")
    assert "log scale" not in _write(tmp_path)


def test_classes_beyond_eight_show_the_worst(tmp_path: Path) -> None:
    classes = tuple(f"class {i:02d}" for i in range(12))
    markup = _write(tmp_path, history=_history(20, classes), evaluation=None)
    shown = re.findall(r">(class \d\d) <b>", _chart(markup, "Validation score"))
    assert shown == list(classes[:8])


@pytest.mark.parametrize(
    ("scores", "waiting", "expected"),
    [
        ([0.1, 0.3, 0.5, 0.7, 0.8], 0.0, "still rising"),
        ([0.1, 0.8, 0.7, 0.6, 0.5], 0.0, "fell after step 1,"),
        ([0.1, 0.8, 0.8, 0.8, 0.8], 0.0, None),
        ([0.1, 0.8, 0.8, 0.8, 0.8], 0.5, "waited for data 50%"),
    ],
)
def test_hints_say_what_the_curves_show(
    tmp_path: Path, scores: list[float], waiting: float, expected: str | None
) -> None:
    history = [{"step": i, "score": score, "data_wait": waiting} for i, score in enumerate(scores)]
    markup = _write(tmp_path, history=history)
    hints = re.findall(r'<ul class="notes hints">(.*?)</ul>', markup)
    assert len(hints) == (expected is not None)
    assert expected is None or expected in hints[0]


@pytest.mark.parametrize(("predicted", "shown"), [(0.21, False), (0.5, True)])
def test_a_gap_between_training_and_prediction_is_said(tmp_path: Path, predicted: float, shown: bool) -> None:
    history = [{"step": i, "score": 0.5, "loss_as_trained": 0.2, "loss_as_predicted": predicted} for i in (10, 20)]
    markup = _write(tmp_path, history=history)
    assert ("0.500 as the net predicts, and 0.200 as it was trained" in markup) == shown
    assert len(_points(_chart(markup, "Loss of the same patches"))) == 2


def test_nothing_at_all_is_still_a_page(tmp_path: Path) -> None:
    markup = _write(
        tmp_path,
        command="",
        versions={},
        recipe_yaml="",
        fingerprint={},
        history=[],
        evaluation=None,
        gallery=[],
        notes=[],
    )
    assert "No step was recorded" in _Page(markup).visible


@pytest.mark.parametrize(
    "history",
    [[{}], [{"step": 1}], [{"step": 5, "loss": 0.5}], [{"step": 0, "score": 0.5, "val_loss": 0.0}], [{"loss": 1.0}]],
)
def test_short_histories(tmp_path: Path, history: list[dict[str, float]]) -> None:
    _Page(_write(tmp_path, history=history, evaluation=None, gallery=[]))


def test_without_evaluation_the_best_score_leads(tmp_path: Path) -> None:
    markup = _write(tmp_path, evaluation=None, gallery=[_panel("a", 0.5)])
    assert re.search(r'class="card first"><p>Best validation score</p><p class="big">0\.995<', markup)


def test_single_image(tmp_path: Path) -> None:
    markup = _write(tmp_path, evaluation=_evaluation(images=("only",)), gallery=[_panel("only", 0.5)])
    assert "1 validation image." in markup
    assert "1 image, worst first" in markup


def test_each_image_is_listed_worst_first(tmp_path: Path) -> None:
    truth = np.ones((4, 4), np.int32)
    half, none = truth.copy(), np.zeros_like(truth)
    half[:2] = 0
    evaluation = evaluate_labels([("good", truth, truth), ("bad", truth, none), ("mid", truth, half)], ["b", "cell"])
    markup = _write(tmp_path, evaluation=evaluation)
    details = markup[markup.index("<details>") : markup.index("</details>")]
    assert re.findall(r"<tr><td>([^<]*)<", details) == ["bad", "mid", "good"]


def test_overlapping_classes_are_drawn_bit_by_bit(tmp_path: Path) -> None:
    truth = np.zeros((30, 30), np.int32)
    truth[:, :10], truth[:, 10:20] = 1, 3
    prediction = np.where(truth == 3, 2, truth)
    evaluation = evaluate_labels([("a", truth, prediction)], ["left", "right"], multilabel=True)
    panel = Panel("a", np.full((1, 30, 30), 100, np.uint8), truth, prediction, 0.5)
    markup = _write(tmp_path, evaluation=evaluation, gallery=[panel], history=_history(20, ("left", "right")))
    _, with_truth, with_prediction, _ = (np.asarray(picture.convert("RGB")) for picture in _pictures(markup))
    assert re.search(r"swatch[^>]*></span>left<.*swatch[^>]*></span>right<", markup)
    assert "mean of 2 classes" in markup
    left, both, none = (tuple(with_truth[15, column]) for column in (5, 15, 25))
    assert len({left, both, none}) == 3
    assert tuple(with_prediction[15, 5]) == left
    assert tuple(with_prediction[15, 15]) not in {left, both, none}


# Objects -------------------------------------------------------------------------------------------------------------


def _squares(*ids: int) -> np.ndarray:
    """Draw squares of 8 x 8 pixels in a row, two pixels apart, with the given ids."""
    labels = np.zeros((12, 10 * len(ids)), np.int32)
    for place, value in enumerate(ids):
        labels[2:10, 10 * place + 1 : 10 * place + 9] = value
    return labels


def test_objects_are_shown_in_cards_and_a_table(tmp_path: Path) -> None:
    truth, found = _squares(3, 9, 4, 7), _squares(1, 0, 2, 2)
    items = [("a", truth, found), ("b", truth, truth), ("<i>c</i>", found, truth)]
    evaluation = evaluate_labels(items, ["background", "cell"], instances=True)
    markup = _write(tmp_path, evaluation=evaluation)
    visible = _Page(markup).visible
    for metric, title in OBJECT_METRICS.items():
        assert title in visible, title
        spread = evaluation.objects[metric]
        row = re.search(rf"<tr><td>{re.escape(title)}<(.*?)</tr>", markup)
        assert row is not None
        assert f"{spread['low']:.3f}–{spread['high']:.3f}" in row[1]
        mean = float(f"{spread['mean']:.4g}")
        assert f"<b>{mean:g}</b>" in row[1]
    assert OBJECTS_POLICY in visible
    cards = re.findall(r'class="card[^"]*"><p>([^<]*)</p><p class="big">([^<]*)<', markup)
    values = dict(cards)
    assert values["F1 at IoU 0.5"] == f"{evaluation.objects['f1_50']['mean']:.3f}"
    assert values["Accuracy (AP), mean of IoU 0.5 to 0.95"] == f"{evaluation.objects['mean_accuracy']['mean']:.3f}"
    assert values["Dice on validation images"] == f"{evaluation.summary['dice']:.3f}"
    plain = _write(tmp_path)
    assert "Panoptic quality" not in plain
    assert OBJECTS_POLICY not in plain


def test_objects_have_a_colour_each_and_no_class_has_one(tmp_path: Path) -> None:
    truth, found = _squares(3, 9, 4), _squares(8, 0, 1)
    evaluation = evaluate_labels([("a", truth, found)], ["background", "cell"], instances=True)
    shown = align_ids(truth, found)
    markup = _write(
        tmp_path, evaluation=evaluation, gallery=[Panel("a", np.full((1, *truth.shape), 90, np.uint8), truth, shown, 0)]
    )
    _, with_truth, with_found, errors = (np.asarray(picture.convert("RGB")) for picture in _pictures(markup))
    centers = [(6, 5), (6, 15), (6, 25)]
    first, second, third = (tuple(with_truth[center]) for center in centers)
    assert len({first, second, third}) == 3
    # A predicted object has the colour of the ground-truth object that it matches.
    assert [tuple(with_found[center]) for center in centers] == [first, tuple(with_found[0, 0]), third]
    named = {tuple(errors[center]) for center in (centers[0], centers[2])}
    assert named == {ERROR_COLORS["correct"]}
    assert tuple(errors[centers[1]]) == ERROR_COLORS["false negative"]
    assert "<b>Classes</b>" not in markup
    assert "<b>Error map</b>" in markup
    assert "<b>Classes</b>" in _write(tmp_path)


def test_an_object_with_the_id_of_another_is_an_error_in_the_gallery(tmp_path: Path) -> None:
    """Ids of a prediction are arbitrary, so colours and errors are correct only after `align_ids`."""
    truth, found = _squares(1, 2), _squares(2, 1)
    image = np.full((1, *truth.shape), 90, np.uint8)
    evaluation = evaluate_labels([("a", truth, found)], ["background", "cell"], instances=True)
    pictures = []
    for shown in (found, align_ids(truth, found)):
        markup = _write(tmp_path, evaluation=evaluation, gallery=[Panel("a", image, truth, shown, 1)])
        pictures.append([np.asarray(picture.convert("RGB")) for picture in _pictures(markup)])
    assert tuple(pictures[0][3][6, 5]) == ERROR_COLORS["wrong class or object"]
    assert tuple(pictures[1][3][6, 5]) == ERROR_COLORS["correct"]
    np.testing.assert_array_equal(pictures[1][1], pictures[1][2])


def test_same_input_gives_the_same_file(tmp_path: Path) -> None:
    assert _write(tmp_path) == _write(tmp_path)


def test_fingerprint_of_plain_json_values(tmp_path: Path) -> None:
    facts = json.loads('{"a": null, "b": true, "c": [[1, 2], [3, 4]], "d": 1e-9, "e": []}')
    facts["many"] = list(range(40))
    visible = _Page(_write(tmp_path, fingerprint=facts)).visible
    assert "(1, 2), (3, 4)" in visible
    assert "1e-9" in visible
    assert "10, 11, … (40 in all)" in visible


def test_many_notes_fold_but_none_is_lost(tmp_path: Path) -> None:
    notes = [f"note {i}" for i in range(40)]
    markup = _write(tmp_path, notes=notes)
    _Page(markup)
    assert re.findall(r"<li>(note \d+)</li>", markup) == notes
    assert markup.index("note 11<") < markup.index("<summary>28 more") < markup.index("note 12<")
