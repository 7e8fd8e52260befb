"""``septa train --resume``: it continues from the newest checkpoint, or refuses; the model is the undisturbed one."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from septa.errors import Interrupted
from septa.images.read import read_image
from septa.images.write import write_image
from septa.model import Model
from septa.recipe import Recipe
from septa.training import finish
from septa.training.checkpoint import Checkpoints
from septa.training.plan import TrainingRequest
from septa.training.run import train, train_steps

Command = Callable[..., Any]


@pytest.fixture(scope="module")
def original(data: Path, tiny: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the digest of the weights of an undisturbed training."""
    torch.set_num_threads(1)
    return train(data, tmp_path_factory.mktemp("original") / "m.septa", overrides=tiny).weights_sha256


@pytest.fixture(scope="module")
def stopped(data: Path, tiny: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stop a training after step 10, with checkpoints of steps 8 and 10; return its folder."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("stopped")

    def stop_after_ten() -> None:
        for event in train_steps(TrainingRequest(data=data, output=folder / "m.septa", overrides=tiny)):
            if isinstance(event, dict) and event["step"] == 10:
                signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted):
        stop_after_ten()
    return folder


@pytest.fixture
def output(stopped: Path, tmp_path: Path) -> Path:
    """Copy the stopped training."""
    shutil.copytree(stopped, tmp_path / "copy")
    return tmp_path / "copy" / "m.septa"


def list_states(output: Path) -> list[Path]:
    return Checkpoints(find_run_folder(output) / "checkpoints").list_states()


def find_run_folder(output: Path) -> Path:
    return output.with_name(f"{output.stem}-run")


def read_files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_refused(ended: Any, *parts: str) -> None:
    assert ended.code == 2, ended.err
    assert ended.err.count("\n") == 1
    for part in parts:
        assert part in ended.err


def assert_complete(output: Path, original: str) -> None:
    assert Model.load(output).weights_sha256 == original
    found = sorted(str(path.relative_to(output.parent)) for path in output.parent.rglob("*") if path.is_file())
    assert found == ["m-run/log.csv", "m-run/recipe.yaml", "m-run/report.html", "m.septa"]


# Resuming ------------------------------------------------------------------------------------------------------------


def test_the_stopped_training_has_its_checkpoints(output: Path) -> None:
    assert [path.name.split("-")[1] for path in list_states(output)] == ["00000008", "00000010"]
    assert not output.exists()


@pytest.mark.parametrize("same_settings", [True, False])
def test_a_resumed_training_ends_with_the_undisturbed_model(
    same_settings: bool, command: Command, data: Path, output: Path, original: str, tiny_options: list[str]
) -> None:
    """Settings need not be given again, because the checkpoint contains the recipe."""
    before = (find_run_folder(output) / "recipe.yaml").read_text()
    ended = command("train", data, "-o", output, "--resume", *(tiny_options if same_settings else []))
    assert ended.code == 0, ended.err
    assert "resumed after step 10" in ended.out
    assert original in ended.out
    assert_complete(output, original)
    assert (find_run_folder(output) / "recipe.yaml").read_text() == before
    assert "# " in before


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_newest_checkpoint_is_replaced_by_the_previous_one(
    damage: str, command: Command, data: Path, output: Path, original: str
) -> None:
    newest = list_states(output)[-1]
    whole = newest.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 0x10]) + whole[middle + 1 :]
    newest.write_bytes({"truncated": whole[:middle], "flipped": flipped, "empty": b""}[damage])
    ended = command("train", data, "-o", output, "--resume")
    assert ended.code == 0, ended.err
    assert f"{newest}: " in ended.out
    assert "resumed after step 8" in ended.out
    assert_complete(output, original)


def test_damaged_best_weights_make_their_states_unusable(command: Command, data: Path, output: Path) -> None:
    (best,) = list_states(output)[-1].parent.glob("best-*")
    best.write_bytes(best.read_bytes()[:-1])
    ended = command("train", data, "-o", output, "--resume")
    assert_refused(ended, "no checkpoint in this folder can be used; ", best.name)


def test_it_is_an_error_if_all_checkpoints_are_damaged(command: Command, data: Path, output: Path) -> None:
    for path in list_states(output):
        path.write_bytes(path.read_bytes()[:100])
    before = read_files(output.parent)
    ended = command("train", data, "-o", output, "--resume")
    assert_refused(ended, "no checkpoint in this folder can be used; ", *(path.name for path in list_states(output)))
    assert read_files(output.parent) == before


def test_temporary_files_of_killed_processes_are_removed(
    command: Command, data: Path, output: Path, original: str
) -> None:
    folder = find_run_folder(output)
    left = [output.parent / ".m.septa.0123456789abcdef.tmp", folder / ".log.csv.0123456789abcdef.tmp"]
    left.append(folder / "checkpoints" / f".{list_states(output)[-1].name}.0123456789abcdef.tmp")
    others = [output.parent / ".other.septa.0123456789abcdef.tmp", output.parent / "notes.tmp"]
    for path in (*left, *others):
        path.write_bytes(b"half")
    assert command("train", data, "-o", output, "--resume").code == 0
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in others)
    for path in others:
        path.unlink()
    assert_complete(output, original)


def test_resuming_without_an_earlier_training_starts_one(
    command: Command, data: Path, tmp_path: Path, original: str, tiny_options: list[str]
) -> None:
    output = tmp_path / "new" / "m.septa"
    ended = command("train", data, "-o", output, "--resume", *tiny_options)
    assert ended.code == 0, ended.err
    assert "nothing to resume: training from the beginning" in ended.out
    assert_complete(output, original)


def test_a_training_killed_between_model_and_report_is_completed(
    command: Command, data: Path, output: Path, original: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(finish, "write_report", die)
        assert command("train", data, "-o", output, "--resume").code == 130
    assert output.exists()
    assert list_states(output)
    rows = (find_run_folder(output) / "log.csv").read_text()
    ended = command("train", data, "-o", output, "--resume")
    assert ended.code == 0, ended.err
    assert (find_run_folder(output) / "log.csv").read_text() == rows
    assert_complete(output, original)


# A finished training -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def done(data: Path, tiny: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    output = tmp_path_factory.mktemp("done") / "m.septa"
    train(data, output, overrides=tiny)
    return output


def test_resuming_a_finished_training_says_so(command: Command, data: Path, done: Path) -> None:
    before = read_files(done.parent)
    ended = command("train", data, "-o", done, "--resume")
    assert ended.code == 0, ended.err
    assert ended.err == ""
    assert f"{done}: this training is finished" in ended.out
    assert read_files(done.parent) == before
    assert train(data, done, resume=True).weights_sha256 == Model.load(done).weights_sha256
    assert read_files(done.parent) == before


def test_another_recipe_for_a_finished_training_is_refused(command: Command, data: Path, done: Path) -> None:
    ended = command("train", data, "-o", done, "--resume", "--set", "training.steps=21")
    assert_refused(ended, "training.steps: 20 -> 21")


def test_a_damaged_model_is_not_a_finished_training(command: Command, data: Path, done: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.septa"
    output.write_bytes(done.read_bytes()[:-5])
    assert_refused(command("train", data, "-o", output, "--resume"), "m.septa: the file is damaged")


# Refusals ------------------------------------------------------------------------------------------------------------


def test_nothing_is_overwritten_without_overwrite(
    command: Command, data: Path, output: Path, done: Path, tiny_options: list[str]
) -> None:
    for path, problem in ((output, "the folder holds an unfinished training. "), (done, "m.septa: the file exists. ")):
        before = read_files(path.parent)
        assert_refused(command("train", data, "-o", path, *tiny_options), problem, "--overwrite")
        assert read_files(path.parent) == before


def test_overwrite_starts_again(
    command: Command, data: Path, output: Path, original: str, tiny_options: list[str]
) -> None:
    ended = command("train", data, "-o", output, "--overwrite", *tiny_options)
    assert ended.code == 0, ended.err
    assert "resumed" not in ended.out
    assert_complete(output, original)


def test_resume_and_overwrite_cannot_be_combined(command: Command, data: Path, output: Path) -> None:
    before = read_files(output.parent)
    assert_refused(
        command("train", data, "-o", output, "--resume", "--overwrite"),
        "error: --resume and --overwrite cannot be combined. Give one of them.",
    )
    assert read_files(output.parent) == before


def test_another_recipe_is_refused_and_its_differences_named(
    command: Command, data: Path, output: Path, tmp_path: Path, tiny: tuple[str, ...]
) -> None:
    before = read_files(output.parent)
    other = ["--set", "training.lr=0.5", "--set", "augment.flip=false"]
    ended = command("train", data, "-o", output, "--resume", *other)
    assert_refused(
        ended, "this training has another recipe (", "augment.flip: True -> False", "training.lr: ", "-> 0.5"
    )
    recipe = tmp_path / "other.yaml"
    recipe.write_text(Recipe().with_overrides((*tiny, "net.width=5")).to_yaml())
    assert_refused(command("train", data, "-o", output, "--resume", "--recipe", recipe), "net.width: 4 -> 5")
    assert read_files(output.parent) == before


def test_changed_data_are_refused(command: Command, data: Path, output: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(data, changed)
    image_cyx = np.array(read_image(changed / "images" / "im3.png"))
    image_cyx[0, 5, 5] ^= 1
    write_image(changed / "images" / "im3.png", image_cyx)
    before = read_files(output.parent)
    assert_refused(
        command("train", changed, "-o", output, "--resume"), "the data have changed since this training began (digest "
    )
    assert read_files(output.parent) == before


def test_renamed_images_are_refused(command: Command, data: Path, output: Path, tmp_path: Path) -> None:
    """The same pixels under other names have another order, or another side of the split."""
    renamed = tmp_path / "renamed"
    shutil.copytree(data, renamed)
    for folder in ("images", "labels"):
        (renamed / folder / "im0.png").rename(renamed / folder / "zz.png")
    assert_refused(
        command("train", renamed, "-o", output, "--resume"),
        "the names of the images, or their split, have changed since this training began. ",
    )


def test_a_diverging_loss_is_one_error_line_and_checkpoints_stay_finite(
    command: Command, data: Path, tmp_path: Path, tiny_options: list[str]
) -> None:
    output = tmp_path / "m.septa"
    hot = ("training.lr=1e30", "training.optimizer=sgd", "training.clip=0", "training.checkpoint_every=1")
    more = [part for setting in (*hot, "net.norm=none") for part in ("--set", setting)]
    ended = command("train", data, "-o", output, *tiny_options, *more)
    assert_refused(ended, "became NaN or Inf with a batch from im", "training.lr")
    assert not output.exists()
    assert list_states(output)
    _, tensors, refused = Checkpoints(find_run_folder(output) / "checkpoints").load_newest()
    assert not refused
    assert all(tensor.isfinite().all() for tensor in tensors.values() if tensor.is_floating_point())
