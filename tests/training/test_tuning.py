"""The tuning of thresholds, compared with a search of the whole grid on known maps, and in whole trainings."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy import ndimage

from septa import tensor_file
from septa.data import Fingerprint
from septa.data.samples import Example
from septa.images.read import read_image, read_labels
from septa.metrics.objects import score_objects
from septa.model import KIND, Model
from septa.objects import confidence
from septa.objects.calibration import compute_calibration_error
from septa.recipe import IGNORE, Recipe
from septa.report.training import write_report
from septa.synthetic.dataset import write_dataset
from septa.tasks import MOST_TUNED_REACH, Prior
from septa.tasks.decoding import Decoding, find_objects
from septa.tasks.instances import Instances
from septa.training import finish, tuning
from septa.training.finish import TrainingDone
from septa.training.plan import TrainingRequest
from septa.training.run import train_steps
from septa.training.tuning import Tuning, find_prior, tune_model

NAMES = ("least_pixels", "seed", "foreground")


class FakeModel:
    """Fake model: the logits of an image are the image itself."""

    def __init__(self) -> None:
        self.task = Instances("distance")
        self.decoding = Decoding()
        self.requests: list[tuple[tuple[int, ...], str]] = []

    def engine(self, device: str, name: str) -> str:
        return f"{name} on {device}"

    def logits(self, image_cyx: np.ndarray, *, engine: str) -> np.ndarray:
        self.requests.append((image_cyx.shape[1:], engine))
        return image_cyx


def make_example(foreground_yx: np.ndarray, inner_yx: np.ndarray, labels_yx: np.ndarray) -> Example:
    """Make an image in which a `FakeModel` finds these maps."""
    maps = np.clip(np.stack([foreground_yx, inner_yx]), 1e-4, 1 - 1e-4)
    return Example((np.log(maps) - np.log1p(-maps)).astype(np.float32), labels_yx, ())


def make_scene(seed: int) -> Example:
    """Make pairs of cells for which the thresholds 0.7, 0.7 and 10 are best.

    Lower seeds join the cells, higher ones miss some, and a lower foreground has a halo. There are specks of six pixels
    and cells of sixteen.
    """
    rng = np.random.default_rng(seed)
    size = (64, 96)
    foreground_yx, inner_yx, labels_yx = np.zeros(size), np.zeros(size), np.zeros(size, np.int32)
    for number, (row, column) in enumerate(itertools.product(range(4, 60, 20), range(4, 90, 30))):
        foreground_yx[row - 1 : row + 11, column - 1 : column + 21] = rng.uniform(0.61, 0.69)
        for half in range(2):
            cell = np.s_[row : row + 10, column + 10 * half : column + 10 * half + 10]
            core = np.s_[row + 3 : row + 7, column + 10 * half + 3 : column + 10 * half + 7]
            foreground_yx[cell], inner_yx[cell], labels_yx[cell] = 0.95, 0.2, 3 + 70_000 * (2 * number + half)
            inner_yx[core] = 0.95 if half else rng.uniform(0.71, 0.79)
        inner_yx[row + 4, column + 7 : column + 13] = rng.uniform(0.61, 0.69)
        if rng.random() < 0.5:
            foreground_yx[row + 13 : row + 15, column : column + 3] = 0.9  # a speck
        small = np.s_[row + 13 : row + 17, column + 6 : column + 10]
        foreground_yx[small], inner_yx[small], labels_yx[small] = 0.95, 0.95, 5 + 70_000 * (2 * number + 1)
    labels_yx[:, 92:], foreground_yx[:20, 92:] = IGNORE, 0.9
    return make_example(foreground_yx, inner_yx, labels_yx)


def make_fingerprint(*diameters: float) -> Fingerprint:
    """Make the fingerprint of images of 256 x 256 pixels whose objects have these 5, 50 and 95 percentiles."""
    one = (1.0,)
    return Fingerprint(
        images=5,
        sizes=((256, 256),) * 3,
        channels=1,
        dtype="uint8",
        mean=one,
        std=one,
        percentiles=(one,),
        offset=one,
        scale=one,
        class_shares=one,
        diameter_percentiles=diameters,  # type: ignore[arg-type]
        digest="",
    )


def compute_score(examples: list[Example], decoding: Decoding) -> float:
    """Compute the score on known maps, as an oracle."""
    scores = []
    for one in examples:
        maps = 1 / (1 + np.exp(-one.image_cyx))
        scores.append(score_objects(one.labels_yx, find_objects(*maps, decoding)).mean_accuracy)
    return float(np.mean(scores))


def run_tuning(examples: list[Example], device: str = "cpu") -> tuple[Tuning, FakeModel]:
    model = FakeModel()
    return tune_model(model, examples, device), model  # type: ignore[arg-type]


def drop_reach(found: Tuning) -> Decoding:
    """Return the thresholds that were searched; the reach follows from them."""
    return replace(found.decoding, reach=0)


# --- the search ---------------------------------------------------------------------------------------------------


def test_each_threshold_in_turn_is_the_best_of_the_grid() -> None:
    examples = [make_scene(seed) for seed in range(3)]
    found, model = run_tuning(examples, "cuda:7")
    assert model.requests == [((64, 96), "torch on cuda:7")] * 3
    assert tuple(found.curves) == NAMES
    values = {name: [value for value, _ in found.curves[name]] for name in NAMES}
    for name in NAMES:
        assert values[name] == sorted(set(values[name]))
        assert getattr(Decoding(), name) in values[name]
    grid = {
        (least, seed, foreground): compute_score(examples, Decoding(foreground, seed, int(least)))
        for least, seed, foreground in itertools.product(*values.values())
    }
    standing = [getattr(Decoding(), name) for name in NAMES]
    for turn, name in enumerate((*NAMES, NAMES[0])):
        place = turn % len(NAMES)
        line = {value: grid[(*standing[:place], value, *standing[place + 1 :])] for value in values[name]}
        assert turn == 0 or found.curves[name] == tuple(line.items())  # the first curve is replaced later
        assert all(isinstance(number, float) for point in found.curves[name] for number in point)
        before = standing[place]
        standing[place] = max(line, key=lambda value: (line[value], -abs(value - before)))
    assert standing == [10, 0.7, 0.7]
    assert drop_reach(found) == Decoding(foreground=0.7, seed=0.7, least_pixels=10)
    assert compute_score(examples, found.decoding) == compute_score(examples, drop_reach(found))
    assert isinstance(found.decoding.least_pixels, int)
    # Here, tuning one threshold after the other finds the best of the grid.
    assert grid[tuple(standing)] == max(grid.values()) == 1


def test_the_defaults_are_kept_if_no_value_is_better() -> None:
    labels_yx = np.zeros((20, 30), np.int32)
    labels_yx[3:12, 4:14], labels_yx[3:16, 20:28] = 9, 4
    for maps_yx in (labels_yx > 0, np.zeros(labels_yx.shape)):
        found, _ = run_tuning([make_example(maps_yx, maps_yx, labels_yx)])
        assert drop_reach(found) == Decoding()
        assert {score for curve in found.curves.values() for _, score in curve} == {float(np.any(maps_yx))}


@pytest.mark.parametrize(("rim", "reach"), [(2, 8), (9, 18), (30, 60)])
def test_the_reach_is_twice_what_objects_need(rim: int, reach: int) -> None:
    labels_yx = np.zeros((200, 200), np.int32)
    labels_yx[20:180, 20:180] = 1
    inner_yx = np.zeros(labels_yx.shape)
    inner_yx[20 + rim : 180 - rim, 20 + rim : 180 - rim] = 0.95
    found, _ = run_tuning([make_example(labels_yx > 0, inner_yx, labels_yx)])
    assert found.decoding.reach == pytest.approx(reach, abs=2)


def test_a_reach_that_lowers_the_score_is_increased() -> None:
    """One of many objects has its seed at one end; the reach of a percentile would cut it in two."""
    labels_yx, inner_yx = np.zeros((90, 300), np.int32), np.zeros((90, 300))
    for number, column in enumerate(range(5, 290, 15), start=1):
        labels_yx[5:60, column : column + 12] = number
        inner_yx[7:58, column + 2 : column + 10] = 0.95
    labels_yx[80:84, 10:70], inner_yx[80:84, 10:13] = 99, 0.95
    one = make_example(labels_yx > 0, inner_yx, labels_yx)
    found, _ = run_tuning([one])
    assert compute_score([one], found.decoding) == 1
    assert compute_score([one], replace(found.decoding, reach=found.decoding.reach // 2)) < 1


def test_the_reach_is_at_least_what_is_known_before() -> None:
    """New images may have larger objects than the few that choose the thresholds."""
    labels_yx = np.zeros((60, 60), np.int32)
    labels_yx[20:40, 20:40] = 1
    one = make_example(labels_yx > 0, ndimage.minimum_filter(labels_yx, 5), labels_yx)
    model: Any = FakeModel()
    reaches = [tune_model(model, [one], "cpu", Prior(least_reach=least)).decoding.reach for least in (0, 5, 30)]
    assert reaches == [8, 8, 30]


@pytest.mark.parametrize(("copies", "expected"), [(40, [0.7, 0.7, 0.5]), (1, [0.7, 0.7, 0.7])])
def test_no_threshold_changes_for_the_luck_of_few_objects(copies: int, expected: list[float]) -> None:
    """A low seed joins a pair, so two objects are found less; of few objects each one counts."""
    labels_yx, inner_yx = np.zeros((30, 20 * copies + 20), np.int32), np.zeros((30, 20 * copies + 20))
    for number in range(copies):
        column = 20 * number + 2
        labels_yx[5:15, column : column + 10] = number + 1
        inner_yx[8:12, column + 3 : column + 7] = 0.95
    column += 10
    labels_yx[5:15, column : column + 10] = copies + 1
    inner_yx[8:12, column + 3 : column + 7] = 0.95
    inner_yx[9, column - 7 : column + 7] = np.maximum(inner_yx[9, column - 7 : column + 7], 0.65)
    one = make_example(labels_yx > 0, inner_yx, labels_yx)
    model: Any = FakeModel()
    assert [tune_model(model, [one], "cpu", Prior(luck=luck)).decoding.seed for luck in (1, 2, 20)] == expected


def test_no_luck_holds_the_smallest_size() -> None:
    """Specks, of which one more than the objects may be, are dropped."""
    labels_yx, foreground_yx = np.zeros((40, 420), np.int32), np.zeros((40, 420))
    for number in range(20):
        labels_yx[5:15, 20 * number + 2 : 20 * number + 12] = number + 1
    foreground_yx[labels_yx > 0] = 0.95
    foreground_yx[30:32, 3:6] = foreground_yx[30:32, 43:46] = 0.95
    one = make_example(foreground_yx, foreground_yx, labels_yx)
    model: Any = FakeModel()
    assert tune_model(model, [one], "cpu", Prior(luck=9)).decoding.least_pixels == 10


@pytest.mark.parametrize(
    ("task", "changes", "reach", "expected"),
    [
        ("instances", [], None, Prior(least_reach=21)),
        ("instances", ["data.largest=20"], None, Prior(least_reach=11)),  # images at half of their size
        ("instances", ["data.largest=28"], None, Prior(least_reach=21)),
        ("instances", [], 9, Prior(least_reach=21, luck=2)),
        ("instances", [], 40, Prior(least_reach=40, luck=2)),
        ("instances", [], 0, Prior(least_reach=MOST_TUNED_REACH, luck=2)),  # any distance
        ("semantic", [], 9, Prior()),
    ],
)
def test_what_is_known_comes_from_the_labels_and_the_parent(
    task: str, changes: list[str], reach: int | None, expected: Prior
) -> None:
    recipe = Recipe().with_overrides([f"task={task}", *changes])
    model: Any = SimpleNamespace(recipe=recipe, task=SimpleNamespace(finds_objects=task == "instances"))
    fingerprint = make_fingerprint(8, 20, 42)
    assert find_prior(model, fingerprint, None if reach is None else {"reach": reach}) == expected
    assert expected.luck == 1 or find_prior(model, fingerprint, {}) == Prior(least_reach=21)


def test_a_reach_is_not_asked_for_beyond_the_overlap_of_blocks() -> None:
    model: Any = SimpleNamespace(recipe=Recipe(), task=SimpleNamespace(finds_objects=True))
    assert find_prior(model, make_fingerprint(80, 200, 420), None) == Prior(least_reach=64)


def test_a_parent_without_a_limit_leaves_none() -> None:
    labels_yx = np.zeros((60, 60), np.int32)
    labels_yx[20:40, 20:40] = 1
    one = make_example(labels_yx > 0, labels_yx > 0, labels_yx)
    model: Any = FakeModel()
    assert tune_model(model, [one], "cpu", Prior(least_reach=MOST_TUNED_REACH)).decoding.reach == 0


def test_the_sizes_that_are_tried_depend_on_the_objects() -> None:
    """None of the usual sizes would drop specks of 100 pixels near objects of 4096."""
    labels_yx = np.zeros((150, 230), np.int32)
    foreground_yx = np.zeros(labels_yx.shape)
    for number, column in enumerate((5, 80, 155), start=1):
        labels_yx[5:69, column : column + 64] = number
        foreground_yx[80:90, column : column + 10] = 0.95
    foreground_yx[labels_yx > 0] = 0.95
    found, _ = run_tuning([make_example(foreground_yx, foreground_yx, labels_yx)])
    assert [value for value, _ in found.curves["least_pixels"]] == [1, 5, 10, 20, 40, 64, 128, 256, 512, 1024, 1365]
    assert found.decoding.least_pixels == 128
    assert dict(found.curves["least_pixels"])[128] == 1 > dict(found.curves["least_pixels"])[64]


def test_of_equally_good_values_the_nearest_to_the_default_is_chosen() -> None:
    labels_yx = np.zeros((12, 30), np.int32)
    labels_yx[1:11, 1:15], labels_yx[1:11, 15:29] = 1, 2
    inner_yx = np.where(labels_yx > 0, 0.2, 0)
    inner_yx[4:8, 4:11] = inner_yx[4:8, 19:26] = 0.95
    inner_yx[5, 11:19] = 0.65  # every higher seed separates the objects
    found, _ = run_tuning([make_example(labels_yx > 0, inner_yx, labels_yx)])
    scores = dict(found.curves["seed"])
    assert scores[0.7] == scores[0.9] > scores[0.6]
    assert drop_reach(found) == Decoding(seed=0.7)
    inner_yx[5, 11:19] = 0.2
    inner_yx[4:8, 4:11] = 0.45  # here every lower seed finds both
    found, _ = run_tuning([make_example(labels_yx > 0, inner_yx, labels_yx)])
    assert drop_reach(found) == Decoding(seed=0.4)


def test_the_score_is_the_mean_over_images() -> None:
    """Two small images have more weight than a large one."""
    examples = []
    for size, faint in (((40, 60), 0.95), ((14, 14), 0.65), ((14, 14), 0.65)):
        labels_yx = np.zeros(size, np.int32)
        labels_yx[2:-2, 2:-2] = 1
        # A low threshold takes this background as foreground.
        foreground_yx = np.where(labels_yx > 0, 0.95, 0.35 if faint > 0.9 else faint)
        examples.append(make_example(foreground_yx, labels_yx > 0, labels_yx))
    found, _ = run_tuning(examples)
    scores = dict(found.curves["foreground"])
    alone = [dict(run_tuning([one])[0].curves["foreground"]) for one in examples]
    for value, score in scores.items():
        assert score == pytest.approx(np.mean([curve[value] for curve in alone]))
    assert scores[0.3] < scores[0.5] < scores[0.7] == 1
    assert found.decoding.foreground == 0.7


def test_the_number_of_pixels_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [(30, 40), (10, 10), (20, 30), (20, 20)]
    examples = [make_example(np.ones(size), np.ones(size), np.ones(size, np.int32)) for size in sizes]
    for limit in (10**6, 1800, 1200, 700, 1):
        monkeypatch.setattr(tuning, "_MOST_PIXELS", limit)
        _, model = run_tuning(examples)
        used = [size for size, _ in model.requests]
        room = limit - sum(map(np.prod, used))
        assert room >= 0 or len(used) == 1
        assert all(np.prod(size) > room for size in sizes if size not in used)
    assert sorted(used) != sorted(sizes)


def test_images_of_all_sources_choose_the_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first names are all of one source; its images alone would fill the room."""
    monkeypatch.setattr(tuning, "_MOST_PIXELS", 20 * 1200)
    sizes = [(30, 40)] * 40 + [(40, 30)] * 40
    _, model = run_tuning([make_example(np.ones(size), np.ones(size), np.ones(size, np.int32)) for size in sizes])
    assert min(Counter(size for size, _ in model.requests).values()) >= 5


def test_no_real_object_is_dropped_as_a_speck() -> None:
    """The net misses half of the small objects and finds specks of their size, so that dropping both would pay."""
    labels_yx, found_yx = np.zeros((200, 200), np.int32), np.zeros((200, 200))
    number = 0
    for row, column in itertools.product(range(0, 100, 25), range(0, 200, 25)):
        number += 1
        labels_yx[row + 2 : row + 22, column + 2 : column + 22] = number
    found_yx[labels_yx > 0] = 0.95
    for place, (row, column) in enumerate(itertools.product(range(110, 200, 10), range(0, 200, 10))):
        found_yx[row : row + 5, column : column + 5] = 0.95 * (place % 4 > 0)
        if place % 16 == 1:
            number += 1
            labels_yx[row : row + 5, column : column + 5] = number
    one = make_example(found_yx, found_yx, labels_yx)
    found, _ = run_tuning([one])
    dropped = replace(found.decoding, least_pixels=26)
    assert compute_score([one], dropped) > compute_score([one], found.decoding)
    assert found.decoding.least_pixels <= 25


# --- through a training -------------------------------------------------------------------------------------------


class Trained(NamedTuple):
    data: Path
    done: TrainingDone
    tuning: Tuning


@pytest.fixture(scope="module", params=["seam", "border", "distance"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny: tuple[str, ...]) -> Trained:
    folder = tmp_path_factory.mktemp(request.param)
    data = folder / "data"
    write_dataset(data, "cells", 6, (64, 64), 0)
    more = ("task=instances", f"instances.encoding={request.param}", "training.lr=0.02", "training.ema=0")
    tunings: list[Tuning] = []
    priors: list[Prior] = []

    def record_tuning(*arguments: Any) -> Tuning:
        tunings.append(tune_model(*arguments))
        priors.append(arguments[-1])
        return tunings[-1]

    engines: list[Any] = []
    logits = Model.logits

    def count_pass(model: Model, image: Any, **settings: Any) -> Any:
        engines.append(settings["engine"])
        return logits(model, image, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finish, "tune_model", record_tuning)
        patch.setattr(Model, "logits", count_pass)
        training = TrainingRequest(
            data=data, output=folder / "m.septa", overrides=(*tiny, "training.steps=40", *more), device="cpu"
        )
        *_, done = train_steps(training)
    assert isinstance(done, TrainingDone)
    (tuning_result,) = tunings
    large = done.model.provenance["fingerprint"]["diameter_percentiles"][2]
    assert priors == [Prior(least_reach=math.ceil(large / 2))]
    passes = Counter(map(id, engines))  # each image passes once through the net, and once in bf16 where that is fast
    assert set(passes.values()) == {len(done.model.provenance["validation"])}
    assert len(passes) == (1 if done.model.bf16 is None else 2)
    return Trained(data, done, tuning_result)


def list_images(data: Path) -> list[Path]:
    return sorted((data / "images").iterdir())


def test_the_model_has_the_thresholds_that_were_found(trained: Trained) -> None:
    found = trained.tuning.decoding
    assert trained.done.model.decoding == found
    loaded = Model.load(trained.done.path)
    assert loaded.decoding == found
    assert isinstance(loaded.task, Instances)
    assert loaded.task.decoding == found
    assert loaded.task.encoding == loaded.recipe.instances.encoding
    header, _ = tensor_file.unpack(trained.done.path.read_bytes(), KIND, trained.done.path)
    assert header["decoding"] == found.to_json()


def test_the_reported_scores_use_the_chosen_thresholds(trained: Trained) -> None:
    """The tuning used all of the few validation images, so the last curve contains the score."""
    last = dict(trained.tuning.curves["least_pixels"])
    spread = trained.done.evaluation.objects["mean_accuracy"]
    assert spread["mean"] == pytest.approx(last[trained.tuning.decoding.least_pixels])
    assert spread["mean"] >= dict(trained.tuning.curves["seed"])[0.5]
    assert max(last.values()) > 0
    scores = [
        score_objects(
            read_labels(next((trained.data / "labels").glob(f"{name}.*"))).array.astype(np.int32),
            trained.done.model.segment(next((trained.data / "images").glob(f"{name}.*")), device="cpu"),
        ).mean_accuracy
        for name, _ in trained.done.model.provenance["validation"]
    ]
    assert spread["mean"] == pytest.approx(np.mean(scores))


def test_predictions_by_the_command_are_those_of_the_model(trained: Trained, tmp_path: Path, command: Any) -> None:
    others = replace(trained.done.model, decoding=Decoding(foreground=0.3, seed=0.6, least_pixels=60))
    others.save(tmp_path / "others.septa")
    assert Model.load(tmp_path / "others.septa").decoding == others.decoding
    changed = 0
    for path, model in ((trained.done.path, trained.done.model), (tmp_path / "others.septa", others)):
        output = tmp_path / f"{path.stem}-out"
        assert command("predict", path, trained.data / "images", "-o", output, "--device", "cpu").code == 0
        for image in list_images(trained.data):
            found_yx = model.segment(image, device="cpu")
            (written,) = output.glob(f"{image.stem}.*")
            np.testing.assert_array_equal(read_labels(written).array, found_yx)
            maps = model.task.compute_maps(model.logits(read_image(image), device="cpu"))  # type: ignore[union-attr]
            np.testing.assert_array_equal(found_yx, find_objects(*maps, model.decoding))
            changed += not np.array_equal(found_yx, find_objects(*maps, Decoding()))
    assert changed > 0


def find_charts(markup: str, chapter: str = "thresholds") -> dict[str, str]:
    """Return the charts of a chapter by their titles."""
    found = re.search(rf'<section id="{chapter}">.*?</section>', markup, re.DOTALL)
    figures = re.findall(r'<figure class="chart">.*?</figure>', found[0] if found else "", re.DOTALL)
    return {re.search(r"<b>(.*?)</b>", figure)[1]: figure for figure in figures}  # type: ignore[index]


def judge_by_hand(trained: Trained) -> list[tuple[float, bool]]:
    """Return the confidence of each predicted object, and True if it matches a true object at IoU 0.5."""
    found = []
    for name, _ in trained.done.model.provenance["validation"]:
        truth_yx = read_labels(next((trained.data / "labels").glob(f"{name}.*"))).array.astype(np.int32)
        image = next((trained.data / "images").glob(f"{name}.*"))
        predicted_yx = trained.done.model.segment(image, device="cpu")
        foreground_yx = trained.done.model.probabilities(image, device="cpu")[1]
        for place, one in enumerate(confidence(predicted_yx, foreground_yx)):
            own_yx = predicted_yx == np.unique(predicted_yx[predicted_yx > 0])[place]
            ious = [
                (own_yx & (truth_yx == label)).sum() / (own_yx | (truth_yx == label)).sum() for label in range(1, 99)
            ]
            found.append((float(one), max(ious) >= 0.5))
    return found


def test_confidence_is_compared_with_the_ground_truth(trained: Trained, tmp_path: Path, command: Any) -> None:
    found = judge_by_hand(trained)
    calibration = trained.done.evaluation.calibration
    confidences, correct = [one for one, _ in found], [one for _, one in found]
    assert calibration["objects"] == len(found) > 0
    expected = compute_calibration_error(confidences, correct)
    assert calibration["expected_calibration_error"] == pytest.approx(expected, abs=1e-6)
    counts, _ = np.histogram(confidences, np.arange(11) / 10)
    assert [entry["objects"] for entry in calibration["bins"]] == counts.tolist()
    assert Model.load(trained.done.path).provenance["calibration"] == calibration
    markup = trained.done.report.read_text(encoding="utf-8")
    (figure,) = find_charts(markup, "calibration").values()
    assert figure.count("<polyline") == 2
    assert f"{calibration['expected_calibration_error']:.4f}" in markup

    scores = tmp_path / "scores.json"
    result = command("evaluate", trained.done.path, trained.data, "--json", scores, "--device", "cpu")
    assert result.code == 0
    again = json.loads(scores.read_text(encoding="utf-8"))["calibration"]
    assert again["objects"] == calibration["objects"]
    assert again["expected_calibration_error"] == pytest.approx(calibration["expected_calibration_error"])
    assert f"{calibration['expected_calibration_error']:.4f}" in result.out


def test_the_report_shows_each_curve(trained: Trained) -> None:
    shown = find_charts(trained.done.report.read_text(encoding="utf-8"))
    assert list(shown) == ["Least pixels", "Seed", "Foreground"]
    for figure, curve in zip(shown.values(), trained.tuning.curves.values(), strict=True):
        (line,) = re.findall(r'<polyline points="([^"]*)"', figure)
        assert len(line.split()) == len(curve)
        values = re.findall(r"<title>value ([\d.]+)\n([\d.]+)", figure)
        assert [float(value) for value, _ in values] == [value for value, _ in curve]
        np.testing.assert_allclose([float(score) for _, score in values], [score for _, score in curve], atol=2e-3)
        assert figure.count('class="ring"') == 1


def test_the_report_marks_the_chosen_value_with_a_ring(tmp_path: Path) -> None:
    given: dict[str, Any] = dict.fromkeys(("title", "command", "recipe_yaml"), "")
    given |= {"versions": {}, "fingerprint": {}, "history": [], "evaluation": None, "gallery": [], "notes": []}
    curve = ((0.3, 0.2), (0.5, 0.6), (0.7, 0.9), (0.9, 0.4))
    write_report(tmp_path / "with.html", tuning={"seed": curve}, chosen={"seed": 0.7}, **given)
    (figure,) = find_charts((tmp_path / "with.html").read_text(encoding="utf-8")).values()
    (ring,) = re.findall(r'class="ring" cx="([\d.]+)" cy="([\d.]+)"', figure)
    (line,) = re.findall(r'<polyline points="([^"]*)"', figure)
    assert ",".join(ring) == line.split()[2]
    for nothing in ({}, None):
        write_report(tmp_path / "without.html", tuning=nothing, **given)
        assert "hreshold" not in (tmp_path / "without.html").read_text(encoding="utf-8")
