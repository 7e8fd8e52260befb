from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from septa.errors import InputError, ResourceError
from septa.images.normalize import Normalization
from septa.images.window import cut_mirrored
from septa.images.write import write_image
from septa.inference import _cache, engines
from septa.inference import graph as _graph
from septa.inference.engines import ENGINES, make_engine, torch_engine
from septa.inference.fold import fold_norms
from septa.inference.openvino_engine import OpenVINOEngine
from septa.inference.predict import predict_tiles
from septa.inference.protocol import Engine, SingleImageEngine
from septa.inference.tiling import largest_difference, plan_tiles_for, smallest_tile_for
from septa.labels.mapping import LabelMapping
from septa.model import Model, build_net
from septa.nets import UNet
from septa.recipe import Recipe
from septa.synthetic.dataset import draw_cells

pytestmark = pytest.mark.usefixtures("one_thread")

OTHERS = ("openvino", "onnxruntime")


def needs(name: str) -> None:
    for package in (name, "onnx"):
        pytest.importorskip(package, reason=f"{package} is not installed")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of the cache of this test."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(_cache, "cache_folder", lambda: folder)
    return folder


def net_of(seed: int = 0, **settings: Any) -> UNet:
    """Return a net of random weights whose batch statistics differ from a fresh net's."""
    torch.manual_seed(seed)
    net = UNet(2, 3, **{"depth": 2, "width": 4, **settings}).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.3, 3.0),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.5, 0.5),
            ):
                tensor.uniform_(low, high)
    return net


def noise(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def by_module(net: UNet, image_cyx: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        return net(torch.from_numpy(image_cyx)[None])[0].numpy()


def sizes_for(net: UNet) -> list[tuple[int, int]]:
    if net.margin:
        least = net.input_size(1)
        return [(least, least), (least + 3 * net.multiple, least + net.multiple)]
    return [(1, 1), (5, 130), (96, 64), (131, 77)]


# --- parity ---------------------------------------------------------------------------------------------------------


@cache
def graph_for(family: tuple[tuple[str, Any], ...]) -> bytes:
    return _graph.export_graph(net_of(**dict(family)))


@pytest.mark.parametrize("name", ENGINES[1:])
def test_logits_are_the_modules_at_every_size(family: dict[str, Any], name: str) -> None:
    if name in OTHERS:
        needs(name)
    net = net_of(**family)
    engine = torch_engine(net) if name == "torch" else engines.graph_engine(net, name, graph_for(tuple(family.items())))
    for size in sizes_for(net):
        image = noise(2, *size)
        kept = image.copy()
        expected = by_module(net, image)
        logits = engine(image)
        assert logits.shape == expected.shape
        assert logits.dtype == np.float32
        assert logits.flags.c_contiguous
        assert largest_difference(logits, expected) <= 1e-5 * max(1, float(np.abs(expected).max()))
        np.testing.assert_array_equal(image, kept)
        before = logits.copy()
        engine(noise(2, *size, seed=1))
        # Exact: the next pass must not write into these logits.
        np.testing.assert_array_equal(logits, before)


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_runs_many_images_as_each_alone(name: str) -> None:
    if name in OTHERS:
        needs(name)
    net, images = net_of(), [noise(2, 40, width, seed=width) for width in (32, 48, 32)]
    engine: Engine = make_engine(net, "cpu", name, notify=lambda line: None)
    found = list(engine.run_many(iter(images)))
    assert len(found) == 3
    for image, logits in zip(images, found, strict=True):
        np.testing.assert_array_equal(logits, engine(image))  # exact: one engine, one size


@pytest.mark.parametrize("name", OTHERS)
def test_a_size_that_a_valid_net_does_not_take_is_refused(name: str) -> None:
    needs(name)
    net = net_of(padding="valid")
    with pytest.raises(ValueError, match="is not a valid size"):
        make_engine(net, "cpu", name)(noise(2, net.input_size(1) + 1, net.input_size(1)))


@pytest.mark.parametrize("name", OTHERS)
def test_tiles_pass_the_limit_of_certify(name: str) -> None:
    needs(name)
    net = net_of(depth=3, width=8)
    engine = make_engine(net, "cpu", name)
    image = draw_cells(301, 283, 2).image_cyx.repeat(2, 0)
    unit = Normalization("dataset", (float(image.mean()),) * 2, (float(image.std()),) * 2)
    parts = []
    for tile in (1000, smallest_tile_for(net) + 40):
        out = np.full((3, 301, 283), np.nan, np.float32)

        def keep(core: tuple[slice, slice], logits: NDArray[np.float32], out: NDArray[np.float32] = out) -> None:
            out[(slice(None), *core)] = logits

        predict_tiles(engine, partial(cut_mirrored, image), unit, plan_tiles_for(net, 301, 283, tile), keep)
        parts.append(out)
    assert parts[0].std() > 0.1
    assert largest_difference(*parts) <= 1e-5


# --- folding --------------------------------------------------------------------------------------------------------


def norms(net: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in net.modules())


@pytest.mark.parametrize(
    "family", ["plain", "bilinear", "residual", "nested", "attention", "valid bilinear", "resnet"], indirect=True
)
def test_every_batch_norm_is_folded_and_the_net_is_left_as_it_was(family: dict[str, Any]) -> None:
    net = net_of(**family)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    made = fold_norms(net, _graph.make_probe(net))
    assert norms(net) > 0 == norms(made)
    image = noise(2, *sizes_for(net)[-1])
    expected = by_module(net, image)
    assert largest_difference(by_module(made, image), expected) <= 1e-5 * np.abs(expected).max()
    assert before.keys() == net.state_dict().keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_a_fold_is_made_once_and_again_when_a_weight_changes() -> None:
    net = net_of()
    probe = _graph.make_probe(net)
    first = fold_norms(net, probe)
    assert fold_norms(net, probe) is first
    with torch.no_grad():
        net.head.bias += 1
    assert fold_norms(net, probe) is not first
    image = noise(2, 20, 20)
    np.testing.assert_allclose(torch_engine(net)(image), by_module(net, image), atol=1e-5)


def test_norms_that_do_more_are_left_alone() -> None:
    class Active(nn.BatchNorm2d):
        """A norm with an activation, as timm has them."""

        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input).relu()

    net = net_of()
    net.get_submodule("encoder.0").norm1 = Active(4).eval()
    made = fold_norms(net, _graph.make_probe(net))
    assert norms(made) == 1
    image = noise(2, 20, 20)
    np.testing.assert_allclose(by_module(made, image), by_module(net, image), atol=1e-5)


def test_a_fold_that_would_change_the_logits_is_not_taken() -> None:
    class Twice(nn.Module):
        """A net in which the norm and another layer both read the output of the convolution."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2)
            nn.init.uniform_(self.norm.running_var, 2, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            made = self.conv(x)
            out: torch.Tensor = self.norm(made) + made
            return out

    net = Twice().eval()
    assert fold_norms(net, torch.randn(1, 1, 8, 8)) is net
    assert norms(net) == 1


# --- the choice -----------------------------------------------------------------------------------------------------


def timed(monkeypatch: pytest.MonkeyPatch, seconds: dict[Engine, float]) -> None:
    """Let the passes of each engine take the given seconds, and those of torch one second."""
    monkeypatch.setattr(engines, "_time_passes", lambda engine, image: (engine(image), seconds.get(engine, 1.0)))


def fakes(monkeypatch: pytest.MonkeyPatch, net: UNet, made: dict[str, tuple[float, float]]) -> dict[str, Engine]:
    """Replace the engines by ones with a given error and duration, ``{name: (error, seconds)}``."""
    own = torch_engine(net)

    def off(by: float) -> Engine:
        return SingleImageEngine(lambda image: own(image) + np.float32(by))

    known = {name: off(by) for name, (by, _) in made.items()}
    monkeypatch.setattr(engines, "_find_missing", lambda name: None if name in known else name)
    monkeypatch.setattr(engines, "export_graph", lambda net, key: b"")
    monkeypatch.setattr(engines, "graph_engine", lambda net, name, graph: known[name])
    timed(monkeypatch, {known[name]: seconds for name, (_, seconds) in made.items()})
    return known


@pytest.mark.parametrize(
    ("made", "chosen", "line"),
    [
        ({"openvino": (0, 0.5), "onnxruntime": (0, 0.7)}, "openvino", "engine: openvino, 2.0 times as fast as torch"),
        ({"openvino": (0, 0.7), "onnxruntime": (0, 0.5)}, "onnxruntime", "engine: onnxruntime, 2.0 times as fast"),
        ({"openvino": (0, 0.95)}, "torch", "engine: torch, which none of openvino clearly beats"),
        ({"openvino": (9, 0.1)}, "torch", "openvino differs from torch by "),
        ({"openvino": (float("nan"), 0.1)}, "torch", "openvino differs from torch by nan"),
        ({"openvino": (9, 0.1), "onnxruntime": (0, 0.5)}, "onnxruntime", "; openvino differs from torch by "),
        ({}, "torch", "engine: torch (pip install 'septa[openvino]'"),
    ],
)
def test_auto_takes_the_fastest_that_agrees_and_says_why(
    made: dict[str, tuple[float, float]], chosen: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = net_of()
    known = fakes(monkeypatch, net, made)
    lines: list[str] = []
    engine = make_engine(net, "cpu", "auto", notify=lines.append)
    assert lines == []
    image = noise(2, 40, 33)
    expected = torch_engine(net)(image) if chosen == "torch" else known[chosen](image)
    for _ in range(2):
        np.testing.assert_array_equal(engine(image), expected)
    assert len(lines) == 1
    assert line in lines[0]
    assert "\n" not in lines[0]


def test_auto_tries_on_a_part_of_the_first_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    net = net_of(depth=1, width=1)
    fakes(monkeypatch, net, {"openvino": (0, 0.5)})
    seen: list[NDArray[np.float32]] = []
    monkeypatch.setattr(engines, "_time_passes", lambda engine, image: (seen.append(image), (engine(image), 1.0))[1])
    image = noise(2, 600, 40)
    make_engine(net, "cpu", "auto", notify=lambda line: None)(image)
    assert len(seen) == 2
    assert all(np.array_equal(one, image[:, :256]) for one in seen)


def test_auto_passes_over_an_engine_that_cannot_run_the_net(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    net = net_of()
    monkeypatch.setattr(engines, "_find_missing", lambda name: None if name == "openvino" else name)

    def fails(net: UNet, key: str) -> bytes:
        raise InputError("--engine", "PyTorch cannot export this net to ONNX", "Give --engine torch")

    monkeypatch.setattr(engines, "export_graph", fails)
    image = noise(2, 40, 33)
    np.testing.assert_array_equal(make_engine(net, "cpu", "auto")(image), torch_engine(net)(image))
    assert capsys.readouterr().err.endswith("clearly beats; PyTorch cannot export this net to ONNX\n")


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "extra"), [("openvino", "openvino"), ("onnxruntime", "onnx")])
@pytest.mark.parametrize("package", ["", "onnx"])
def test_a_missing_package_is_reported_with_the_command_that_installs_it(
    name: str, extra: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if package:
        needs(name)
    monkeypatch.setitem(sys.modules, package or name, None)
    with pytest.raises(InputError) as caught:
        make_engine(net_of(), "cpu", name)
    remedy = f"Run pip install 'septa[{extra}]', or give --engine torch"
    assert str(caught.value) == f"--engine {name}: the package {package or name} is not installed. {remedy}."


def test_an_unknown_engine_and_a_device_that_one_does_not_have_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"--engine tpu: this engine is not known\. Use auto, torch, openvino or onnxruntime;"
    ):
        make_engine(net_of(), "cpu", "tpu")
    with pytest.raises(
        InputError, match=r"--engine openvino: this engine runs on the CPU, not on cuda\. Give --engine torch\."
    ):
        make_engine(net_of(), "cuda", "openvino")


def test_a_net_that_cannot_be_exported_is_reported() -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")

    class Odd(UNet):
        def forward(self, image_bcyx: torch.Tensor) -> torch.Tensor:
            return torch.linalg.lstsq(image_bcyx, image_bcyx).solution

    with pytest.raises(InputError, match=r"^--engine: PyTorch cannot export this net to ONNX\. Give --engine torch\.$"):
        _graph.export_graph(Odd(1, 2, depth=1, width=1).eval())


CLASSES = {"openvino": "OpenVINOEngine", "onnxruntime": "OnnxRuntimeEngine"}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("text", ["std::bad_alloc", "Could not allocate memory", "bad allocation"])
def test_out_of_memory_is_a_resource_error_whatever_the_engine_calls_it(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(image: NDArray[np.float32]) -> NDArray[np.float32]:
        raise RuntimeError(text)

    monkeypatch.setattr(engines, CLASSES[name], lambda graph, threads: SingleImageEngine(fail))
    engine = engines.graph_engine(net_of(), name, b"")
    with pytest.raises(
        ResourceError, match=r"^memory: there is not enough for a tile of 5 x 6 pixels\. Give a smaller"
    ):
        engine(noise(2, 5, 6))


@pytest.mark.parametrize("name", OTHERS)
def test_other_failures_of_an_engine_are_reported_in_the_words_of_septa(name: str) -> None:
    needs(name)
    net = net_of()
    with pytest.raises(InputError) as caught:  # ONNX Runtime reads the graph at once, OpenVINO with the first image
        engines.graph_engine(net, name, b"not a graph")(noise(2, 5, 6))
    assert str(caught.value) == f"--engine {name}: {name} cannot run this net. Give --engine torch."


@pytest.mark.parametrize(("text", "expected"), [("std::bad_alloc", MemoryError), ("a bug", InputError)])
def test_errors_of_a_package_become_errors_of_python_or_septa(text: str, expected: type[Exception]) -> None:
    with pytest.raises(expected) as caught, _graph.translate_engine_errors("openvino"):
        raise RuntimeError(text)
    assert text not in str(caught.value)
    own = InputError("x.tif", "the memory card is damaged", "Copy it again")
    with pytest.raises(InputError) as caught, _graph.translate_engine_errors("openvino"):
        raise own
    assert caught.value is own


# --- threads --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OTHERS)
def test_an_engine_has_as_many_threads_as_torch_or_as_are_given(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    needs(name)
    asked: list[int] = []
    make = getattr(engines, CLASSES[name])
    monkeypatch.setattr(engines, CLASSES[name], lambda graph, threads: (asked.append(threads), make(graph, threads))[1])
    net = net_of()
    image, graph = noise(2, 40, 40), _graph.export_graph(net)
    results = [engines.graph_engine(net, name, graph, threads)(image) for threads in (None, 2)]
    assert asked == [1, 2]
    np.testing.assert_allclose(*results, atol=1e-5)


def test_openvino_computes_in_float32_with_the_threads_given(monkeypatch: pytest.MonkeyPatch) -> None:
    needs("openvino")
    import openvino

    made: list[Any] = []

    class Core(openvino.Core):
        def compile_model(self, *args: Any) -> Any:
            made.append(super().compile_model(*args))
            return made[-1]

    monkeypatch.setattr(openvino, "Core", Core)
    run = OpenVINOEngine(_graph.export_graph(net_of()), 1)
    for side in (32, 48, 32):
        run(noise(2, side, 32))
    compiled, _ = made  # one graph for each size
    assert "f32" in str(compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1


def test_what_openvino_compiles_is_kept_for_the_next_process(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    needs("openvino")
    import openvino

    compiled: list[Any] = []

    class Core(openvino.Core):
        def compile_model(self, *args: Any) -> Any:
            compiled.append(args)
            return super().compile_model(*args)

    monkeypatch.setattr(openvino, "Core", Core)
    graph, image = _graph.export_graph(net_of()), noise(2, 32, 48)
    first = OpenVINOEngine(graph, 1)(image)
    (file,) = own_cache.iterdir()
    np.testing.assert_array_equal(OpenVINOEngine(graph, 1)(image), first)
    assert len(compiled) == 1
    # Another size, other weights or another number of threads need another graph.
    OpenVINOEngine(graph, 1)(noise(2, 48, 32))
    OpenVINOEngine(_graph.export_graph(net_of(1)), 1)(image)
    OpenVINOEngine(graph, 2)(image)
    assert len(compiled) == 4
    assert len(list(own_cache.iterdir())) == 4
    # A damaged file is detected, and a file that OpenVINO refuses is compiled again.
    data = file.read_bytes()
    damaged = data[:2000] + bytes([data[2000] ^ 1]) + data[2001:]
    file.write_bytes(damaged)
    np.testing.assert_array_equal(OpenVINOEngine(graph, 1)(image), first)
    assert len(compiled) == 5
    assert file.read_bytes() != damaged
    monkeypatch.setattr(_cache, "find", lambda key: b"of another version")
    np.testing.assert_array_equal(OpenVINOEngine(graph, 1)(image), first)
    assert len(compiled) == 6


def test_images_of_many_sizes_do_not_fill_the_cache(own_cache: Path) -> None:
    needs("openvino")
    run = OpenVINOEngine(_graph.export_graph(net_of(depth=1, width=2)), 1)
    for side in range(2, 24, 2):
        run(noise(2, 8, side))
    assert len(list(own_cache.iterdir())) == 8


def test_the_cache_keeps_what_was_used_last(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        _cache.keep(name, name.encode() * 500)
    monkeypatch.setattr(_cache, "_MOST", sum(file.stat().st_size for file in own_cache.iterdir()))
    (other := own_cache / "mine.txt").write_bytes(bytes(5000))
    for age, name in enumerate("abc", 1):
        os.utime(_cache._path(name), (age, age))
    left, being_written = (own_cache / f".{name}.cache.0123456789abcdef.tmp" for name in ("x", "y"))
    left.touch()
    os.utime(left, (1, 1))
    being_written.touch()
    assert _cache.find("a") == b"a" * 500  # now the most recently used
    _cache.keep("d", b"d" * 500)
    assert [name for name in "abcd" if _cache.find(name)] == ["a", "c", "d"]
    assert other.exists()
    assert being_written.exists()
    assert not left.exists()


def test_a_read_only_cache_can_be_used(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(path)

    _cache.keep("a", b"a")
    monkeypatch.setattr(os, "utime", refuse)
    assert _cache.find("a") == b"a"


def test_without_a_home_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(_cache, "cache_folder", homeless)
    _cache.keep("a", b"a")
    assert _cache.find("a") is None


def test_openvino_is_used_without_its_telemetry() -> None:
    needs("openvino")
    code = (
        "import sys, septa.inference.openvino_engine as o; o.import_openvino(); "
        "assert sys.modules['openvino_telemetry'] is None"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- the cache ------------------------------------------------------------------------------------------------------


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """List that gets one entry for each export of a net."""
    pytest.importorskip("onnx", reason="onnx is not installed")
    made: list[int] = []
    export = _graph._write_onnx
    monkeypatch.setattr(_graph, "_write_onnx", lambda net: (made.append(1), export(net))[1])
    return made


def test_a_graph_is_made_once_for_each_key(exports: list[int], own_cache: Path) -> None:
    net = net_of()
    first = _graph.export_graph(net, "a")
    assert _graph.export_graph(net, "a") == first
    assert len(exports) == 1
    _graph.export_graph(net, "b")
    assert len(exports) == 2
    assert len(list(own_cache.iterdir())) == 2
    _graph.export_graph(net)
    assert len(exports) == 3
    assert len(list(own_cache.iterdir())) == 2


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "removed"])
def test_a_damaged_graph_is_made_again(exports: list[int], own_cache: Path, damage: str) -> None:
    net = net_of()
    graph = _graph.export_graph(net, "a")
    (file,) = own_cache.iterdir()
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    new = {"cut": bytes(data[:-10]), "flipped": bytes(data), "empty": b""}
    file.unlink() if damage == "removed" else file.write_bytes(new[damage])
    assert _graph.export_graph(net, "a") == graph
    assert len(exports) == 2
    assert _graph.export_graph(net, "a") == graph
    assert len(exports) == 2


def test_a_cache_that_cannot_be_written_is_not_used(exports: list[int], own_cache: Path) -> None:
    own_cache.write_text("a file where the folder should be")
    net = net_of()
    assert _graph.export_graph(net, "a") == _graph.export_graph(net, "a")
    assert len(exports) == 2


@pytest.mark.parametrize(
    ("platform", "variable", "value", "expected"),
    [
        ("linux", "XDG_CACHE_HOME", "/c", "/c/septa/graphs"),
        ("linux", "XDG_CACHE_HOME", "relative", "/h/.cache/septa/graphs"),
        ("linux", "XDG_CACHE_HOME", "", "/h/.cache/septa/graphs"),
        ("darwin", "XDG_CACHE_HOME", "/c", "/h/Library/Caches/septa/graphs"),
        ("win32", "LOCALAPPDATA", "/c", "/c/septa/graphs"),
    ],
)
def test_the_cache_lies_where_the_system_has_it(
    platform: str, variable: str, value: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: Path("/h"))
    monkeypatch.setenv(variable, value)
    assert _cache.cache_folder() == Path(expected)


# --- a model and the command ----------------------------------------------------------------------------------------


def model_of(seed: int = 0, **net: Any) -> Model:
    settings = {"depth": 2, "width": 4, **net}
    recipe = Recipe().with_overrides([f"net.{name}={value}" for name, value in settings.items()])
    torch.manual_seed(seed)
    labels = LabelMapping("binary", ("background", "foreground"), (0, 255))
    return Model(
        net=build_net(recipe, 1, 2),
        channels=1,
        labels=labels,
        normalization=Normalization("dataset", (9e3,), (4e3,)),
        recipe=recipe,
    )


def test_the_cache_distinguishes_weights_and_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[str] = []
    monkeypatch.setattr("septa.model.model.make_engine", lambda net, device, name, key, **more: keys.append(key))
    for model in (model_of(), model_of(), model_of(1), model_of(reduction=2)):
        model.engine("cpu", "openvino")
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


@pytest.mark.parametrize("name", OTHERS)
def test_a_model_segments_with_an_engine_by_name_or_made(name: str) -> None:
    needs(name)
    model = model_of()
    image = draw_cells(120, 90, 3).image_cyx
    usual = model.logits(image, tta=2)
    assert usual.std() > 0.01
    for engine in (name, model.engine("cpu", name)):
        logits = model.logits(image, tile=70, tta=2, engine=engine)
        assert 0 < largest_difference(logits, usual) <= 1e-4 * np.abs(usual).max()
        assert (model.segment(image, engine=engine) != model.segment(image)).mean() < 0.01


def septa(*arguments: object, cache: Path) -> subprocess.CompletedProcess[str]:
    import os

    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "COLUMNS": "120"}
    command = [sys.executable, "-m", "septa", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    model_of().save(folder / "m.septa")
    write_image(folder / "a.tif", draw_cells(120, 90, 3).image_cyx)
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="the cache's place is given by XDG_CACHE_HOME on Linux")
def test_the_command_takes_an_engine_for_files_and_stores(files: Path, tmp_path: Path) -> None:
    needs("onnxruntime")
    cache = tmp_path / "home"
    arguments = ("--engine", "onnxruntime", "--tile", 64)
    done = septa(
        "predict", files / "m.septa", files / "a.tif", "-o", tmp_path / "out", "--certify", *arguments, cache=cache
    )
    assert done.returncode == 0, done.stderr
    assert "largest difference to the whole image " in done.stdout
    (kept,) = (cache / "septa" / "graphs").iterdir()
    changed = kept.stat().st_ino
    done = septa("predict", files / "m.septa", files / "a.tif", "-o", tmp_path / "s.ome.zarr", *arguments, cache=cache)
    assert done.returncode == 0, done.stderr
    assert kept.stat().st_ino == changed  # it is the same file, not a new one
    done = septa("predict", files / "m.septa", files / "a.tif", "-o", tmp_path / "o2", "--engine", "auto", cache=cache)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("engine: ")
    assert done.stderr.count("\n") == 1


def test_the_command_refuses_an_unknown_engine_in_one_line(files: Path, tmp_path: Path) -> None:
    arguments = ("-o", tmp_path / "s.ome.zarr", "--engine", "gpu")
    done = septa("predict", files / "m.septa", files / "a.tif", *arguments, cache=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(
        "error: --engine gpu: this engine is not known. Use auto, torch, openvino or onnxruntime; torch may be"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_processes_of_a_cluster_have_the_engine_that_is_asked_for(files: Path, tmp_path: Path) -> None:
    needs("onnxruntime")
    pytest.importorskip("distributed", reason="distributed is not installed")
    given = ("predict", files / "m.septa", files / "a.tif", "--engine")
    for name, more in {"one": (), "two": ("--workers", 2)}.items():
        done = septa(*given, "onnxruntime", "-o", tmp_path / f"{name}.ome.zarr", *more, cache=tmp_path / "cache")
        assert done.returncode == 0, done.stderr
        assert len(list((tmp_path / "cache" / "septa" / "graphs").iterdir())) == 1
    one, two = (
        [(path.relative_to(folder), path.read_bytes()) for path in sorted(folder.rglob("c/*/*"))]
        for folder in (tmp_path / "one.ome.zarr", tmp_path / "two.ome.zarr")
    )
    assert one
    assert one == two


def test_the_command_refuses_that_each_process_of_a_cluster_chooses(files: Path, tmp_path: Path) -> None:
    arguments = ("-o", tmp_path / "s.ome.zarr", "--workers", 2, "--engine", "auto")
    done = septa("predict", files / "m.septa", files / "a.tif", *arguments, cache=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: --engine: auto may choose a different engine in each process")
