"""The choice whether a fine-tuned model joins parts as its parent does."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from septa.display import print_result
from septa.images import Normalization
from septa.labels import LabelMapping
from septa.metrics import score_objects
from septa.model import Bf16Difference, Model, build_net, decode_as_predicted
from septa.recipe import Recipe
from septa.tasks import Decoding, Prior, find_objects, make_task
from septa.training import TrainingDone, finish, fold_finish, joining, precision
from septa.training.automatic import RecipeChoice
from septa.training.joining import Joining, apply_joining, choose_joining, list_labelled, settle_joining
from septa.training.plan import TrainingRequest
from septa.training.precision import Bf16Comparison
from septa.training.run import AlreadyTrained, FoldDone, train_steps
from septa.training.scoring import SegmentedExample, segment_examples
from septa.training.tuning import tune_folds, tune_model

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore::septa.SeptaWarning")]
SETTING = "instances.join_share"
INHERITED = {SETTING: "as in parent.septa"}
AREA = 100
"""Area of each part of the images, pixels."""


def make_model(share: float, **settings: float) -> Model:
    """Make an untrained model that joins parts."""
    recipe = Recipe().with_overrides(
        ["net.width=2", "net.depth=1", "task=instances", "instances.encoding=border", f"{SETTING}={share}"]
        + [f"instances.{key}={value}" for key, value in settings.items()]
    )
    labels = LabelMapping("instances", ("background", "cell"), (0,))
    net = build_net(recipe, 1, make_task(recipe, labels).outputs).eval()
    decoding = Decoding(seed=0.6)
    return Model(
        net=net, channels=1, labels=labels, normalization=Normalization("image"), recipe=recipe, decoding=decoding
    )


def draw(*, one: bool) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Draw pairs of touching parts with a shallow rim between them: logits, and labels of one or two objects a pair."""
    foreground_yx, inner_yx = np.full((2, 60, 80), 0.02, np.float32)
    labels_yx = np.zeros((60, 80), np.int32)
    for number, left in enumerate((4, 32)):
        for half in range(2):
            part = np.s_[10:20, left + 10 * half : left + 10 * half + 10]
            foreground_yx[part], inner_yx[part] = 0.95, 0.5
            inner_yx[11:19, left + 10 * half + 1 : left + 10 * half + 9] = 0.9
            labels_yx[part] = 2 * number + (1 if one else 1 + half)
    foreground_yx[40:44, 60:64], inner_yx[40:44, 60:64] = 0.95, 0.9  # a speck, which no label has
    chances = np.stack([1 - foreground_yx, inner_yx * foreground_yx, (1 - inner_yx) * foreground_yx])
    return np.log(chances, dtype=np.float32), labels_yx


def make_images(model: Model, *, one: bool) -> list[Any]:
    logits_kyx, labels_yx = draw(one=one)
    examples: Any = [SimpleNamespace(labels_yx=labels_yx)] * 3
    return list(list_labelled(model, examples, {0: logits_kyx, 2: logits_kyx}))


def choose(model: Model, *, one: bool, reasons: dict[str, str] | None = None) -> tuple[RecipeChoice, Joining | None]:
    choice = RecipeChoice(model.recipe, INHERITED if reasons is None else reasons)
    return choose_joining(choice, make_images(model, one=one))


# --- objects as they are predicted --------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "count"), [(0, 5), (2, 5), (3, 3)])
def test_parts_are_joined_by_the_typical_area_of_what_is_found(share: float, count: int) -> None:
    model = make_model(share)
    logits_kyx, labels_yx = draw(one=share == 3)
    found_yx = decode_as_predicted(model, logits_kyx)
    assert found_yx.max() == count
    foreground_yx, inner_yx = model.task.compute_maps(logits_kyx)  # type: ignore[attr-defined]
    decoding = replace(model.decoding, join_pixels=round(share * AREA))
    np.testing.assert_array_equal(found_yx, find_objects(foreground_yx, inner_yx, decoding))
    np.testing.assert_array_equal(found_yx[:30] > 0, labels_yx[:30] > 0)


def test_debris_is_dropped_by_the_typical_area() -> None:
    logits_kyx, _ = draw(one=False)
    assert decode_as_predicted(make_model(0, least_share=0.2), logits_kyx).max() == 4
    assert decode_as_predicted(make_model(0, least_share=0.1), logits_kyx).max() == 5


def test_the_scale_of_the_image_is_kept() -> None:
    logits_kyx, _ = draw(one=False)
    model = replace(make_model(3), decoding=Decoding(seed=0.6, least_pixels=17, reach=1))
    assert decode_as_predicted(model, logits_kyx).max() == 2  # not the speck of 16 pixels
    changes = ["data.largest=4", "instances.smallest=80"]
    sized = replace(model, recipe=model.recipe.with_overrides(changes))
    np.testing.assert_array_equal(decode_as_predicted(sized, logits_kyx), decode_as_predicted(model, logits_kyx))


def test_the_scores_at_the_end_are_those_of_predicted_objects() -> None:
    model = make_model(3)
    logits_kyx, labels_yx = draw(one=True)
    example = SimpleNamespace(labels_yx=labels_yx, image_cyx=None)
    (image,) = segment_examples(model, [example], "cpu", {0: logits_kyx})  # type: ignore[arg-type]
    np.testing.assert_array_equal(image.predicted_yx, decode_as_predicted(model, logits_kyx))
    assert image.judged is not None
    assert len(image.judged[0]) == 3


def test_labels_in_bf16_are_compared_as_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(3)
    logits_kyx, labels_yx = draw(one=True)
    monkeypatch.setattr(precision, "has_fast_bf16", lambda device: True)
    monkeypatch.setattr(Model, "engine", lambda *_: "any")
    monkeypatch.setattr(Model, "logits", lambda *_, **__: logits_kyx)
    comparison = Bf16Comparison(model, "cpu")
    examples: Any = [SimpleNamespace(image_cyx=labels_yx[None])]
    found_yx = decode_as_predicted(model, logits_kyx)
    list(comparison.follow([SegmentedExample(examples=examples, index=0, predicted_yx=found_yx)]))
    assert comparison.difference == Bf16Difference(changed=0, pixels=labels_yx.size)


def test_an_image_without_objects_has_none() -> None:
    logits_kyx = np.log(np.full((3, 16, 16), 0.01, np.float32))
    logits_kyx[0] = 0
    assert not decode_as_predicted(make_model(2), logits_kyx).any()


# --- the choice ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("one", [True, False])
def test_parts_are_joined_unless_the_images_score_better_without(one: bool) -> None:
    model = make_model(3)
    choice, found = choose(model, one=one)
    assert found is not None
    scores = {
        share: score_objects(labels_yx, decode_as_predicted(make_model(share), logits_kyx)).mean_accuracy
        for logits_kyx, labels_yx in [draw(one=one)]
        for share in (0, 3)
    }
    assert (found.joined, found.apart) == (pytest.approx(scores[3]), pytest.approx(scores[0]))
    assert found.objects == (4 if one else 8)
    assert found.helps == one == (scores[3] > scores[0])
    assert choice.recipe.instances.join_share == (3 if one else 0)
    assert apply_joining(model, choice).recipe == choice.recipe
    if one:
        assert choice.reasons == INHERITED
        assert found.describe("score").startswith("touching parts are joined (instances.join_share): score 0.667 with ")
    else:
        assert choice.reasons == {SETTING: "joined parts score lower on the validation images"}
        assert found.describe("score").endswith(
            "score 0.040 with joining on the validation images, 0.800 without; one object counts 0.125"
        )


def test_one_object_is_no_reason() -> None:
    assert Joining(0.5, 0.5999, 10).helps
    assert not Joining(0.5, 0.61, 10).helps
    assert Joining(0, 0, 0).helps


def test_what_the_user_gave_or_no_parent_has_is_not_chosen() -> None:
    model = make_model(3)
    given, found = choose(model, one=False, reasons={"net.depth": "as in parent.septa"})
    assert (found, given.recipe) == (None, model.recipe)
    assert choose(make_model(0), one=False)[1] is None
    settled = settle_joining(RecipeChoice(model.recipe, {**INHERITED, "net.depth": "as in parent.septa"}))
    assert (settled.reasons, settled.recipe) == ({"net.depth": "as in parent.septa"}, model.recipe)


# --- a training ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parent") / "parent.septa"
    replace(make_model(3), decoding=Decoding(seed=0.6, reach=33)).save(path)
    return path


@pytest.mark.parametrize("folds", [0, 2])
@pytest.mark.parametrize("helps", [True, False])
def test_a_training_follows_the_choice_and_says_so(
    parent: Path, cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, helps: bool, folds: int
) -> None:
    compared: list[list[Any]] = []

    def compare(images: Any) -> Joining:
        compared.append(list(images))
        return Joining(0.6, 0.4, 10) if helps else Joining(0.4, 0.6, 10)

    def segment(model: Model, *arguments: Any) -> Any:
        scored.add(model.recipe.instances.join_share)
        return segment_examples(model, *arguments)

    def tune(*arguments: Any) -> Any:
        priors.append(arguments[-1])
        return (tune_folds if isinstance(arguments[0], list) else tune_model)(*arguments)

    scored: set[float] = set()
    priors: list[Prior] = []
    monkeypatch.setattr(joining, "_compare", compare)
    for module, name in ((finish, "tune_model"), (fold_finish, "tune_folds")):
        monkeypatch.setattr(module, name, tune)
        if (module is fold_finish) == bool(folds):
            monkeypatch.setattr(module, "segment_examples", segment)
    quick = ("training.steps=2", "training.validations=1", "training.workers=1", "training.amp=off")
    given = (f"training.start={parent}", "sampling.patch=[32, 32]", *quick)
    request = TrainingRequest(data=cells, output=tmp_path / "m.septa", overrides=given, folds=folds, device="cpu")
    *events, done = train_steps(request)
    assert isinstance(done, TrainingDone)
    held_out = len(list((cells / "images").iterdir())) if folds else len(done.model.provenance["validation"])
    # Folds leave it to the whole; each is scored by what the other one chooses.
    assert [len(images) for images in compared] == [*[held_out // 2] * folds, held_out]
    assert all(model.recipe.instances.join_share == 3 for images in compared for model, *_ in images)
    assert scored == {3.0 * helps}
    assert {prior.luck for prior in priors} == {2}
    assert max(prior.least_reach for prior in priors) == 33  # that of the parent
    assert Model.load(done.path).recipe.instances.join_share == done.model.recipe.instances.join_share == 3 * helps
    words = f"touching parts are {'joined' if helps else 'not joined'} (instances.join_share): mean AP of objects 0."
    assert done.joining.startswith(words)
    assert words in done.report.read_text(encoding="utf-8")
    console = Console(file=StringIO(), width=200)
    print_result(console, done)
    assert words in console.file.getvalue()  # type: ignore[attr-defined]
    written = Recipe.load(tmp_path / "m-run" / "recipe.yaml")
    assert written.instances.join_share == 3 * helps
    assert sum(isinstance(event, FoldDone) for event in events) == folds
    for recipe in (None, Recipe.from_yaml("instances: {rim: 2}"), written):
        again = replace(request, resume=True, recipe=recipe)
        assert list(train_steps(again)) == [AlreadyTrained(done.path)]
