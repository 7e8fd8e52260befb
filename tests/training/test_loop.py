"""The training loop: its steps, history, checkpoints, signals and clock; resuming is exact, bit for bit."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from septa.errors import Interrupted, SeptaError
from septa.recipe import Recipe
from septa.training import clock as clock_module
from septa.training import loop
from septa.training import step as step_module
from septa.training.checkpoint import Checkpoints
from septa.training.clock import SignalCatcher
from septa.training.loop import run_training_loop
from septa.training.schedule import compute_lr_factor, count_drops
from septa.training.state import TrainingState, make_optimizer
from septa.training.validate import Validation

VARIANTS = {
    "adamw": [],
    "adam": ["training.optimizer=adam", "training.clip=0"],
    "sgd": ["training.optimizer=sgd", "training.lr=0.05"],
    "sgd without momentum": ["training.optimizer=sgd", "training.momentum=0", "training.checkpoint_every=1"],
    "group": ["net.norm=group", "training.checkpoint_every=6"],
    "instance": ["net.norm=instance", "net.up=bilinear", "training.schedule=polynomial"],
    "none": ["net.norm=none", "training.ema=0", "training.schedule=constant"],
    "plateau": ["training.schedule=plateau", "training.patience=1", "training.validations=20", "training.lr=0.3"],
    "accumulate": ["training.accumulate=2", "training.checkpoint_every=3", "training.workers=3"],
    "fixed statistics": ["training.freeze_statistics=0.6", "training.checkpoint_every=7"],
    "fixed statistics without average": ["training.freeze_statistics=0.3", "training.ema=0", "training.accumulate=2"],
    "dropout": ["net.dropout=0.4", "training.checkpoint_every=7"],
    "early stop": [
        "training.early_stop=3",
        "training.validations=20",
        "training.lr=0.3",
        "training.checkpoint_every=1",
    ],
    "image": ["data.normalization=image", "training.steps=17", "training.validations=3"],
}


# Bit for bit ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_training_interrupted_twice_ends_bit_for_bit_as_an_undisturbed_one(
    variant: str, bench: Any, tmp_path: Path, assert_equal: Any
) -> None:
    bench = bench(*VARIANTS[variant])
    undisturbed = bench.run(tmp_path / "one")
    last = undisturbed.step
    bench.die(tmp_path / "two", before=min(9, last - 1), seed=0)
    bench.die(tmp_path / "two", before=last - 1, seed=5)
    resumed = bench.resume(tmp_path / "two")
    assert last >= 4
    assert_equal(undisturbed, resumed)
    assert undisturbed.best is not None
    best = int(undisturbed.best["step"])
    weights = [Checkpoints(tmp_path / folder).load_best(best) for folder in ("one", "two")]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_the_variants_do_what_they_are_named_after(bench: Any, tmp_path: Path) -> None:
    stalled = bench(*VARIANTS["plateau"]).run(tmp_path / "plateau")
    scores = [row["score"] for row in stalled.history if "score" in row]
    assert stalled.drops == count_drops(scores, patience=1) > 0
    stopped = bench(*VARIANTS["early stop"]).run(tmp_path / "stopped")
    assert stopped.finished
    assert stopped.step < 20
    plain, dropped = (bench(*VARIANTS[name]).run(tmp_path / name) for name in ("adamw", "dropout"))
    assert not torch.equal(plain.net.head.weight, dropped.net.head.weight)


@pytest.mark.slow
def test_resume_is_bit_for_bit_with_more_threads(bench: Any, tmp_path: Path, assert_equal: Any) -> None:
    torch.set_num_threads(2)
    bench = bench("training.steps=4", "training.checkpoint_every=2", "training.validations=1")
    undisturbed = bench.run(tmp_path / "one")
    bench.die(tmp_path / "two", before=3)
    assert_equal(undisturbed, bench.resume(tmp_path / "two"))


@pytest.mark.parametrize("variant", ["adamw", "early stop"])
def test_a_finished_training_is_not_trained_further(
    variant: str, bench: Any, tmp_path: Path, assert_equal: Any
) -> None:
    bench = bench(*VARIANTS[variant])
    finished = bench.run(tmp_path)
    assert_equal(finished, bench.resume(tmp_path))


def test_the_seed_changes_the_training(bench: Any, tmp_path: Path) -> None:
    one, two = (bench(f"seed={seed}", "training.steps=3").run(tmp_path / str(seed)) for seed in (1, 2**32 - 1))
    assert not torch.equal(one.net.head.weight, two.net.head.weight)


# Computations --------------------------------------------------------------------------------------------------------


def test_steps_agree_with_a_plain_loop(bench: Any, tmp_path: Path) -> None:
    """The oracle is a plain PyTorch loop with AdamW, and the formula of the moving average."""
    steps, decay = 6, 0.9
    bench = bench(
        f"training.steps={steps}", "training.validations=1", f"training.ema={decay}", "net.norm=none", "training.clip=0"
    )
    trained = bench.run(tmp_path)
    state, sampler, task = bench.state(), bench.job(tmp_path).sampler, bench.job(tmp_path).task
    net, training = state.net, bench.recipe.training
    kernels = [value for value in net.parameters() if value.ndim > 1]
    others = [value for value in net.parameters() if value.ndim == 1]
    groups = [{"params": kernels, "weight_decay": training.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), foreach=False)
    average = {name: value.clone() for name, value in net.state_dict().items()}
    for step in range(steps):
        batch = sampler.batch(2 * step, 2)
        for group in optimizer.param_groups:
            group["lr"] = training.lr * compute_lr_factor(step / steps, training)
        optimizer.zero_grad()
        target_byx = torch.from_numpy(batch.target_byx).long()
        task.loss(net(torch.from_numpy(batch.image_bcyx)), target_byx, bench.recipe.loss).backward()
        optimizer.step()
        share = min(decay, (2 + step) / (11 + step))
        average = {name: share * value + (1 - share) * net.state_dict()[name] for name, value in average.items()}
    for name, value in net.state_dict().items():
        torch.testing.assert_close(trained.net.state_dict()[name], value, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(trained.average.state_dict()[name], average[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "loss",
    [
        (),
        ("loss.dice=0", "loss.class_weights=[0.5, 2, 7]"),
        ("loss.dice=1", "loss.cross_entropy=0"),
        ("loss.dice=0.7", "loss.class_weights=frequency", "net.norm=group"),
        ("loss.dice=0.5", "net.deep_supervision=true", "net.depth=2"),
    ],
    ids=["default", "weights", "dice", "both", "deep"],
)
def test_accumulated_batches_equal_one_large_batch(loss: tuple[str, ...], bench: Any, tmp_path: Path) -> None:
    common = ("training.steps=1", "training.optimizer=sgd", "training.warmup=0", "training.clip=0", "training.lr=0.5")
    more = ("training.momentum=0", "training.weight_decay=0", "training.ema=0", "training.amp=off")
    nets = []
    for split in ("training.batch=2", "training.accumulate=3"), ("training.batch=6", "training.accumulate=1"):
        one = bench("net.norm=none", *common, *more, *loss, *split)
        born, trained = one.state(), one.run(tmp_path / split[1])
        nets.append(
            [after.detach() - before.detach() for before, after in zip(born.net.parameters(), trained.net.parameters())]
        )
        assert max(float(change.abs().max()) for change in nets[-1]) > 1e-3
        assert trained.losses == [] or math.isfinite(trained.losses[-1])
    for small, large in zip(*nets, strict=True):
        torch.testing.assert_close(small, large, rtol=1e-4, atol=1e-5)


def test_accumulation_updates_the_statistics_of_the_norms_once_for_each_batch(bench: Any, tmp_path: Path) -> None:
    trained = bench("training.accumulate=3", "training.steps=2").run(tmp_path)
    counts = [value for name, value in trained.net.state_dict().items() if name.endswith("num_batches_tracked")]
    assert counts
    assert {int(count) for count in counts} == {6}


def test_clipping_bounds_the_gradient(bench: Any, tmp_path: Path) -> None:
    common = ("training.steps=1", "training.optimizer=sgd", "training.warmup=0", "training.weight_decay=0")
    moved = []
    for clip in (0, 1e-3):
        clipped = bench(*common, f"training.clip={clip}", "training.momentum=0", "training.lr=1")
        born, trained = clipped.state(), clipped.run(tmp_path / str(clip))
        before, after = (torch.cat([p.detach().flatten() for p in net.parameters()]) for net in (born.net, trained.net))
        moved.append(float((after - before).norm()))
    assert moved[1] == pytest.approx(1e-3, rel=1e-2)
    assert moved[0] > 1e-2


def test_only_kernels_decay(bench: Any) -> None:
    net = bench().state().net
    for kind in ("adamw", "adam", "sgd"):
        training = Recipe().with_overrides([f"training.optimizer={kind}", "training.weight_decay=0.3"]).training
        decay, none = make_optimizer(net, training, torch.device("cpu")).param_groups
        assert decay["weight_decay"] == 0.3
        assert none["weight_decay"] == 0
        assert {value.ndim for value in decay["params"]} == {4}
        assert {value.ndim for value in none["params"]} == {1}
        assert len(decay["params"]) + len(none["params"]) == len(list(net.parameters()))


def test_training_lowers_the_loss_and_finds_the_discs(bench: Any, tmp_path: Path) -> None:
    state = bench("training.steps=120", "training.lr=0.01", "training.ema=0.9").run(tmp_path)
    losses = [row["loss"] for row in state.history if "loss" in row]
    assert losses[-1] < 0.6 * losses[0]
    assert state.best["score"] > 0.7


# History and checkpoints ---------------------------------------------------------------------------------------------


def test_history_has_a_row_every_ten_steps_and_for_each_validation(bench: Any, tmp_path: Path) -> None:
    bench, job, state = bench(), bench().job(tmp_path), bench().state()
    rows = list(run_training_loop(job, state))
    assert rows == state.history
    assert [(row["step"], "score" in row) for row in rows] == [
        (5, True),
        (10, False),
        (10, True),
        (15, True),
        (20, False),
        (20, True),
    ]
    for row in rows:
        if "score" in row:
            dice = {f"dice_{name}" for name in bench.mapping.class_names}
            assert row.keys() == {"step", "score", "val_loss", "loss_as_trained", "loss_as_predicted", "minutes"} | dice
        else:
            assert row.keys() == {"step", "loss", "lr", "images_per_s", "data_wait", "minutes"}
            assert row["lr"] == pytest.approx(
                bench.recipe.training.lr * compute_lr_factor((row["step"] - 1) / 20, bench.recipe.training)
            )
            assert 0 <= row["data_wait"] <= 1
            assert row["images_per_s"] > 0
    assert np.all(np.diff([row["minutes"] for row in rows]) >= 0)
    best = max((row for row in rows if "score" in row), key=lambda row: row["score"])
    assert state.best == {"step": best["step"], "score": best["score"]}


def test_a_checkpoint_is_written_before_the_first_step(bench: Any, tmp_path: Path) -> None:
    bench = bench()
    bench.die(tmp_path, before=1)
    header, _, _ = Checkpoints(tmp_path).load_newest()
    assert header["step"] == 0
    assert header["train"] == [f"im{index}" for index in range(2, 8)]
    assert header["validation"] == ["im0", "im1"]
    assert Recipe.parse(header["recipe"]) == bench.recipe


# Signals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_the_state_and_resuming_gives_the_same_result(
    number: signal.Signals, code: int, bench: Any, tmp_path: Path, assert_equal: Any
) -> None:
    before = signal.getsignal(number)
    bench = bench("training.checkpoint_every=1000")
    undisturbed, state = bench.run(tmp_path / "one"), bench.state()

    def train_until_signal() -> None:
        for row in run_training_loop(bench.job(tmp_path / "two"), state):
            if row["step"] == 10:
                signal.raise_signal(number)

    with pytest.raises(Interrupted, match=f"{number.name} was received and the state is saved") as error:
        train_until_signal()
    assert error.value.exit_code == code
    assert signal.getsignal(number) is before
    assert Checkpoints(tmp_path / "two").load_newest()[0]["step"] == 10
    assert_equal(undisturbed, bench.resume(tmp_path / "two"))


def test_a_second_signal_acts_as_usual() -> None:
    with SignalCatcher() as signals:
        signal.raise_signal(signal.SIGINT)
        assert signals.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("in_thread", [False, True])
def test_an_abandoned_training_leaves_the_handlers_of_others_alone(in_thread: bool) -> None:
    """Python may collect it while another training runs, in any thread."""
    before = signal.getsignal(signal.SIGINT)
    abandoned, running = SignalCatcher(), SignalCatcher()
    abandoned.__enter__()
    running.__enter__()
    if in_thread:
        thread = Thread(target=abandoned.__exit__)
        thread.start()
        thread.join()
    else:
        abandoned.__exit__()
    signal.raise_signal(signal.SIGINT)
    assert (running.received, abandoned.received) == (signal.SIGINT, 0)
    running.__exit__()
    # The handler of the abandoned one was put back; it acts as the one before it, and puts that back.
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    assert abandoned.received == 0


def test_a_training_that_another_thread_ends_gives_the_handlers_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    catcher = SignalCatcher()
    catcher.__enter__()
    thread = Thread(target=catcher.__exit__)
    thread.start()
    thread.join()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


# NaN and Inf ---------------------------------------------------------------------------------------------------------


def assert_all_finite(folder: Path) -> int:
    checkpoints = Checkpoints(folder)
    states = checkpoints.list_states()
    for _ in states:
        _, tensors, refused = checkpoints.load_newest()
        assert not refused
        assert all(tensor.isfinite().all() for tensor in tensors.values() if tensor.is_floating_point())
    return len(states)


@pytest.mark.parametrize("checkpoint_every", [1, 1000])
@pytest.mark.parametrize("spoiled", ["the loss", "the gradient"])
def test_an_error_about_nan_or_inf_names_the_images_and_nothing_is_saved(
    spoiled: str, checkpoint_every: int, bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results are read before a save or some steps later; the error names the first bad step in both cases."""
    bench = bench(f"training.checkpoint_every={checkpoint_every}", "training.validations=1")
    job, state, plain = bench.job(tmp_path), bench.state(), step_module._compute_loss

    def spoil(*given: Any, **more: Any) -> torch.Tensor:
        loss = plain(*given, **more)
        if state.step != 3:
            return loss
        if spoiled == "the loss":
            return loss * math.nan
        parameter = state.net.head.weight
        return loss + (parameter - parameter.detach()).abs().sqrt().sum()  # adds 0, with an infinite gradient

    monkeypatch.setattr(step_module, "_compute_loss", spoil)
    with pytest.raises(SeptaError, match=f"^step 4: {spoiled} became NaN or Inf") as error:
        for _ in run_training_loop(job, state):
            pass
    names = ", ".join(dict.fromkeys(job.sampler.sample(number).name for number in (6, 7)))
    assert f"a batch from {names}. " in str(error.value)
    assert Checkpoints(tmp_path).load_newest()[0]["step"] == (3 if checkpoint_every == 1 else 0)
    assert assert_all_finite(tmp_path) > 0


def test_a_training_that_diverges_ends_with_an_error(bench: Any, tmp_path: Path) -> None:
    bench = bench(
        "training.lr=1e30", "training.optimizer=sgd", "training.clip=0", "training.checkpoint_every=1", "net.norm=none"
    )
    with pytest.raises(SeptaError, match="became NaN or Inf with a batch from im"):
        bench.run(tmp_path)
    assert assert_all_finite(tmp_path) > 0


def test_results_are_read_only_before_a_report_or_a_save(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading a number from a GPU waits for it."""
    looks, plain = [], TrainingState.read_results

    def look(state: TrainingState) -> None:
        looks.append((state.step, len(state.pending)))
        plain(state)

    monkeypatch.setattr(TrainingState, "read_results", look)
    read = []
    monkeypatch.setattr(torch.Tensor, "item", lambda tensor: read.append(tensor))
    bench = bench("training.checkpoint_every=6", "training.validations=1")
    monkeypatch.setattr(loop, "validate", lambda *_: Validation(0.5, 0.5, (0.5, 0.5)))
    bench.run(tmp_path)
    assert not read
    assert [look for look in looks if look[1]] == [(6, 6), (10, 4), (12, 2), (18, 6), (20, 2)]


def test_weights_that_are_not_finite_are_never_saved_as_the_best(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = loop.run_step

    def spoiled(job: Any, state: TrainingState, *rest: Any) -> float:
        loss = step(job, state, *rest)
        if state.step == 3:
            with torch.no_grad():
                state.inference_net.head.bias[0] = math.inf
        return loss

    monkeypatch.setattr(loop, "run_step", spoiled)
    bench = bench("training.validations=20", "training.checkpoint_every=2")
    state = bench.state()

    def improve_always() -> None:
        for _ in run_training_loop(bench.job(tmp_path), state):
            state.best["score"] = -1.0

    with pytest.raises(SeptaError) as error:
        improve_always()
    problem = "'head.bias' holds NaN or Inf, so nothing was saved"
    assert str(error.value) == f"step {state.step}: {problem}. Lower training.lr."
    assert error.value.exit_code == 2
    assert assert_all_finite(tmp_path) > 0


# The clock -----------------------------------------------------------------------------------------------------------


class FakeClock:
    """Fake of the module ``time`` whose clock changes only when a test changes it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    step = loop.run_step

    def slow_step(*args: Any) -> float:
        clock.now += 0.25
        return step(*args)

    def slow_validation(*_: Any) -> Validation:
        clock.now += 0.5
        return Validation(0.5, 0.5, (0.5, 0.5))

    for module in (loop, clock_module):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=clock.monotonic))
    monkeypatch.setattr(loop, "run_step", slow_step)
    monkeypatch.setattr(loop, "validate", slow_validation)
    return clock


def train_with_clock(bench: Callable[..., Any], folder: Path, clock: FakeClock, *overrides: str) -> TrainingState:
    """Train after a set-up of 3 seconds."""
    bench = bench("training.minutes=0.5", "training.validations=10", *overrides)
    job, state = bench.job(folder, started=clock.now), bench.state()
    clock.now += 3
    for _ in run_training_loop(job, state):
        pass
    return state


def test_minutes_end_the_training_and_its_schedule(bench: Any, clock: FakeClock, tmp_path: Path) -> None:
    begin = clock.now
    state = train_with_clock(bench, tmp_path, clock, "training.steps=100000")
    spent = clock.now - begin
    # Time is kept for the report and for the final evaluation, which takes as long as a validation.
    assert 0.85 * 30 < spent <= 30 - 0.5
    assert state.step < 200
    assert state.optimizer.param_groups[0]["lr"] < 0.01 * Recipe().training.lr
    scored = [row for row in state.history if "score" in row]
    assert scored[-1]["step"] == state.step
    assert 2 <= len(scored) <= 10


def test_steps_end_the_training_if_they_are_reached_first(bench: Any, clock: FakeClock, tmp_path: Path) -> None:
    state = train_with_clock(bench, tmp_path, clock, "training.steps=20")
    assert state.step == 20
    assert state.optimizer.param_groups[0]["lr"] < 0.05 * Recipe().training.lr


def test_a_resumed_training_has_the_remaining_minutes(bench: Any, clock: FakeClock, tmp_path: Path) -> None:
    overrides = ("training.minutes=0.5", "training.steps=100000", "training.checkpoint_every=10")
    # Both runs start at the fake clock: on the machine's own, the result would depend on the time since it booted.
    bench(*overrides).die(tmp_path, before=50, started=clock.now)
    first = 50 * 0.25 + 0.5  # 50 steps and one validation; binary floats hold these numbers exactly
    assert Checkpoints(tmp_path).load_newest()[0]["elapsed"] == first
    clock.now += 500
    begin = clock.now
    state = bench(*overrides).resume(tmp_path, started=clock.now)
    assert 15 < clock.now - begin <= 30 - first
    assert state.finished


def test_a_budget_used_up_by_the_set_up_still_ends_in_a_validation(
    bench: Any, clock: FakeClock, tmp_path: Path
) -> None:
    bench = bench("training.minutes=0.01")
    job, state = bench.job(tmp_path, started=clock.now), bench.state()
    clock.now += 60
    for _ in run_training_loop(job, state):
        pass
    assert state.finished
    assert state.best is not None
    assert state.step <= 1
