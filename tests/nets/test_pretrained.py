"""Published weights: what is loaded into an encoder, and which files are refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from septa.errors import InputError
from septa.nets import pretrained
from septa.nets.encoders import make_encoder
from septa.nets.pretrained import IMAGENET_MEAN, IMAGENET_STD, adapt_channels, imagenet_statistics, load_pretrained
from septa.nets.resnet import ResNetEncoder

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def donor() -> ResNetEncoder:
    """Return a ResNet-18 whose weights and statistics differ from those of a new one."""
    torch.manual_seed(1)
    encoder = ResNetEncoder("resnet18", 3, 4, "batch")
    for name, value in encoder.body.state_dict().items():
        if value.ndim == 1:
            value.uniform_(0.1, 0.2) if "weight" in name else value.uniform_(0.5, 1.5)
        elif value.ndim == 0:
            value.fill_(7)
    return encoder.eval()


@pytest.fixture
def tensors(donor: ResNetEncoder) -> dict[str, Tensor]:
    """Return tensors as they are published: those of the body and of a classifier."""
    body = {name: value.clone() for name, value in donor.body.state_dict().items()}
    return {**body, "fc.weight": torch.randn(10, 512), "fc.bias": torch.zeros(10)}


@pytest.fixture
def receiver() -> ResNetEncoder:
    return ResNetEncoder("resnet18", 3, 4, "batch").eval()


def save(tensors: dict[str, Tensor], folder: Path) -> str:
    path = folder / "weights.safetensors"
    save_file(tensors, path)
    return str(path)


def catch_error(encoder: ResNetEncoder, source: str) -> str:
    """Return the message of the error, and check that the encoder is unchanged."""
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    with pytest.raises(InputError) as caught:
        load_pretrained(encoder, source)
    assert str(caught.value).startswith(source)
    assert "\n" not in str(caught.value)
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name]), name
    return str(caught.value)


def test_a_round_trip_gives_the_same_features(
    donor: ResNetEncoder, receiver: ResNetEncoder, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    stem = {name: value.clone() for name, value in receiver.stem.state_dict().items()}
    load_pretrained(receiver, save(tensors, tmp_path))
    # Exact: weights are copied, and both bodies then compute the same.
    for name, value in receiver.body.state_dict().items():
        assert torch.equal(value, tensors[name]), name
    for name, value in receiver.stem.state_dict().items():
        assert torch.equal(value, stem[name]), name
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        for mine, other in zip(receiver.body(x), donor.body(x), strict=True):
            assert torch.equal(mine, other)


def test_counters_may_be_missing_and_half_precision_is_widened(
    receiver: ResNetEncoder, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    halves = {name: value.half() for name, value in tensors.items() if not name.endswith("num_batches_tracked")}
    load_pretrained(receiver, save(halves, tmp_path))
    for name, value in halves.items():
        if not name.startswith("fc."):
            assert torch.equal(receiver.body.state_dict()[name], value.float()), name
    assert receiver.body.bn1.num_batches_tracked == 0  # type: ignore[union-attr]


# --- the first convolution ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6, 7])
def test_a_grey_image_gives_the_same_response_through_any_number_of_channels(
    channels: int, donor: ResNetEncoder, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    encoder = make_encoder("resnet18", channels, 4, "batch").eval()
    load_pretrained(encoder, save(tensors, tmp_path))
    grey = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        mine, other = encoder.body(grey.repeat(1, channels, 1, 1)), donor.body(grey.repeat(1, 3, 1, 1))
    for one, two in zip(mine, other, strict=True):
        assert two.std() > 1e-3
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


def test_the_rule_for_channels_pixel_by_pixel() -> None:
    weight = torch.randn(2, 3, 3, 3)
    r, g, b = weight[:, 0], weight[:, 1], weight[:, 2]
    mean = (r + g + b) / 3
    for channels, expected in {
        1: [3 * mean],
        2: [1.5 * mean, 1.5 * mean],
        3: [r, g, b],
        4: [r / 2, g, b, r / 2],
        6: [r / 2, g / 2, b / 2, r / 2, g / 2, b / 2],  # repeated, times 3 / 6
    }.items():
        torch.testing.assert_close(adapt_channels(weight, channels), torch.stack(expected, 1))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40))
def test_the_response_to_grey_is_kept(channels: int) -> None:
    weight = torch.randn(4, 3, 7, 7, dtype=torch.float64)
    adapted = adapt_channels(weight, channels)
    assert adapted.shape == (4, channels, 7, 7)
    torch.testing.assert_close(adapted.sum(1), weight.sum(1))


def test_weights_for_the_same_number_of_channels_are_copied_unchanged(
    tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    tensors["conv1.weight"] = torch.randn(64, 5, 7, 7)
    encoder = ResNetEncoder("resnet18", 5, 4, "batch")
    load_pretrained(encoder, save(tensors, tmp_path))
    assert torch.equal(encoder.body.conv1.weight, tensors["conv1.weight"])


def test_the_statistics_that_an_encoder_states_take_precedence() -> None:
    own = ((0.5, 0.5, 0.5), (0.1, 0.2, 0.3))
    assert imagenet_statistics(3, own) == own
    assert imagenet_statistics(2, own) == ((0.5, 0.5), (0.2, 0.2))


def test_imagenet_statistics_of_other_channels_are_the_mean_over_the_colours() -> None:
    assert imagenet_statistics(3) == (IMAGENET_MEAN, IMAGENET_STD)
    for channels in (1, 2, 4, 6):
        mean, std = imagenet_statistics(channels)
        assert mean == pytest.approx([sum(IMAGENET_MEAN) / 3] * channels)
        assert std == pytest.approx([sum(IMAGENET_STD) / 3] * channels)


# --- refused files --------------------------------------------------------------------------------------------------


def test_other_names_are_refused_and_the_first_three_listed(
    receiver: ResNetEncoder, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    prefixed = {f"encoder.{name}": value for name, value in tensors.items()}
    text = catch_error(receiver, save(prefixed, tmp_path))
    assert "the file lacks 100 tensors (conv1.weight, bn1.weight, bn1.bias, ...)" in text
    assert " and has 122 unexpected tensors (encoder.bn1.bias, encoder.bn1.num_batches_tracked, " in text
    tensors["extra"] = tensors.pop("bn1.bias")
    text = catch_error(receiver, save(tensors, tmp_path))
    assert "the file lacks 1 tensor (bn1.bias) and has 1 unexpected tensor (extra)" in text


def test_weights_of_another_resnet_are_refused(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    assert "lacks " in catch_error(ResNetEncoder("resnet34", 3, 4, "batch"), save(tensors, tmp_path))


def put(name: str, value: Tensor) -> Callable[[dict[str, Tensor]], None]:
    return lambda tensors: tensors.update({name: value})


def spoil(name: str, value: float) -> Callable[[dict[str, Tensor]], None]:
    return lambda tensors: tensors[name].view(-1)[3].fill_(value) and None  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            put("layer1.0.conv1.weight", torch.zeros(64, 64, 1, 1)),
            "'layer1.0.conv1.weight' has the shape (64, 64, 1,",
        ),
        (put("layer1.0.conv1.weight", torch.zeros(64, 3, 3, 3)), "has the shape (64, 3, 3, 3), expected (64, 64, 3"),
        (
            put("conv1.weight", torch.zeros(64, 4, 7, 7)),
            "'conv1.weight' has the shape (64, 4, 7, 7), expected",
        ),
        (
            put("conv1.weight", torch.zeros(64, 3, 3, 3)),
            "the tensor 'conv1.weight' has the shape (64, 3, 3, 3)",
        ),
        (
            put("bn1.bias", torch.zeros(64, dtype=torch.int32)),
            "has the type int32, expected a floating-point type",
        ),
        (put("bn1.bias", torch.full((64,), 1e300, dtype=torch.float64)), "the tensor 'bn1.bias' contains NaN or Inf"),
        (put("bn1.num_batches_tracked", torch.tensor(1.0)), "has the type float32, expected an integer type"),
        (spoil("layer4.1.conv2.weight", float("nan")), "'layer4.1.conv2.weight' contains NaN or Inf"),
        (spoil("conv1.weight", float("inf")), "'conv1.weight' contains NaN or Inf"),
        (spoil("bn1.running_var", -0.5), "'bn1.running_var' contains negative variances"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    change: Callable[[dict[str, Tensor]], None],
    expected: str,
    receiver: ResNetEncoder,
    tensors: dict[str, Tensor],
    tmp_path: Path,
) -> None:
    change(tensors)
    assert expected in catch_error(receiver, save(tensors, tmp_path))


@pytest.mark.parametrize("kept", [0, 5, 1000, 40_000_000])
def test_a_cut_file_is_refused(kept: int, receiver: ResNetEncoder, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = Path(save(tensors, tmp_path))
    path.write_bytes(path.read_bytes()[:kept])
    assert "the file is not a safetensors file, or is damaged. Copy or download" in catch_error(receiver, str(path))


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n" + bytes(99), b"{}", b"\xff" * 99])
def test_another_file_is_refused(data: bytes, receiver: ResNetEncoder, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    assert "the file is not a safetensors file, or is damaged. Copy or download" in catch_error(receiver, str(path))


@pytest.mark.parametrize("name", ["a.pth", "a.pt", "a.bin", "a.safetensors"])
@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_are_refused_and_the_error_gives_the_conversion(
    name: str, zipped: bool, receiver: ResNetEncoder, tmp_path: Path
) -> None:
    path = tmp_path / name
    torch.save({"conv1.weight": torch.zeros(2)}, path, _use_new_zipfile_serialization=zipped)
    text = catch_error(receiver, str(path))
    assert "the file is a pickle, which can execute code when it is opened" in text
    assert "weights_only=True" in text


def test_the_conversion_in_the_error_works(receiver: ResNetEncoder, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(tensors, tmp_path / "IN.pth")
    code = catch_error(receiver, str(tmp_path / "IN.pth")).partition('python -c "')[2].partition('"')[0]
    target = tmp_path / "OUT.safetensors"
    exec(code.replace("IN.pth", str(tmp_path / "IN.pth")).replace("OUT.safetensors", str(target)), {})
    load_pretrained(receiver, str(target))
    assert torch.equal(receiver.body.bn1.bias, tensors["bn1.bias"])


def test_a_header_whose_length_looks_like_a_pickle_is_read(
    receiver: ResNetEncoder, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    """A safetensors file begins with the length of its header, whose lowest byte may be 0x80."""
    for padding in range(0, 256, 8):
        path = tmp_path / "x.safetensors"
        save_file({"a": torch.zeros(1)}, path, {"pad": "x" * padding})
        if path.read_bytes()[0] == 0x80:
            assert "lacks 100 tensors" in catch_error(receiver, str(path))
            return
    pytest.fail("no header got a length that looks like a pickle")


def test_a_missing_file_and_a_folder_are_refused(receiver: ResNetEncoder, tmp_path: Path) -> None:
    assert "the file cannot be read (No such file" in catch_error(receiver, str(tmp_path / "x.safetensors"))
    assert "the file cannot be read (" in catch_error(receiver, str(tmp_path))


# --- the hub --------------------------------------------------------------------------------------------------------


class EntryNotFoundError(Exception):
    pass


class LocalEntryNotFoundError(EntryNotFoundError, FileNotFoundError, ValueError):
    pass


class HfHubHTTPError(OSError):
    pass


class RepositoryNotFoundError(HfHubHTTPError):
    pass


KINDS = (EntryNotFoundError, LocalEntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError)
FAILURES: dict[str, Exception] = {
    "timm/absent": RepositoryNotFoundError("404 Client Error.\n\nRepository Not Found"),
    "timm/bare": EntryNotFoundError("no model.safetensors"),
    "timm/offline": LocalEntryNotFoundError("Cannot find the requested files in the disk cache"),
    "timm/broken": HfHubHTTPError("503 Server Error"),
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, str, bool]]:
    """Install a stand-in for huggingface_hub that has one model, and return the list of its calls."""
    calls: list[tuple[str, str, bool]] = []

    def hf_hub_download(name: str, file: str, local_files_only: bool = False) -> str:
        calls.append((name, file, local_files_only))
        cached = tmp_path / "cached"
        if local_files_only and not cached.exists():
            raise EntryNotFoundError("not in the cache")
        if name in FAILURES:
            raise FAILURES[name]
        cached.touch()
        return str(tmp_path / "weights.safetensors")

    package = ModuleType("huggingface_hub")
    utils = ModuleType("huggingface_hub.utils")
    package.__dict__.update(hf_hub_download=hf_hub_download, utils=utils)
    utils.__dict__.update({kind.__name__: kind for kind in KINDS})
    monkeypatch.setitem(sys.modules, "huggingface_hub", package)
    monkeypatch.setitem(sys.modules, "huggingface_hub.utils", utils)
    return calls


def test_weights_come_from_the_hub_once(
    hub: list[tuple[str, str, bool]], receiver: ResNetEncoder, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    save(tensors, tmp_path)
    for _ in range(2):
        load_pretrained(receiver, "hub:timm/resnet18.a1_in1k")
    assert torch.equal(receiver.body.bn1.bias, tensors["bn1.bias"])
    assert {call[:2] for call in hub} == {("timm/resnet18.a1_in1k", "model.safetensors")}
    assert [local for _, _, local in hub] == [True, False, True]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("hub:timm/absent", ": the Hugging Face hub has no public model of this name. Check the name and the"),
        ("hub:timm/bare", ": this model has no file model.safetensors. Check the name and the connection"),
        ("hub:timm/offline", ": the Hugging Face hub cannot be reached. Check the name and the connection"),
        ("hub:timm/broken", ": model.safetensors cannot be downloaded. Check the name and the connection"),
        ("hub:resnet18", ": the name of a model on the hub must have the form hub:OWNER/NAME. Write for example"),
        ("hub:../../etc/passwd", ": the name of a model on the hub must have the form hub:OWNER/NAME. Write for"),
        ("hub:", ": the name of a model on the hub must have the form hub:OWNER/NAME. Write for example"),
    ],
)
@pytest.mark.usefixtures("hub")
def test_models_that_cannot_be_downloaded_are_refused(source: str, expected: str, receiver: ResNetEncoder) -> None:
    text = catch_error(receiver, source)
    assert expected in text
    failure = FAILURES.get(source.removeprefix("hub:"))
    assert failure is None or str(failure) not in text  # a traceback shows it as the cause


def test_the_cause_of_a_failed_download_is_kept(hub: list[tuple[str, str, bool]], receiver: ResNetEncoder) -> None:
    with pytest.raises(InputError) as caught:
        load_pretrained(receiver, "hub:timm/broken")
    assert caught.value.__cause__ is FAILURES["timm/broken"]


def test_without_the_hub_package_the_error_gives_the_installation(
    receiver: ResNetEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> ModuleType:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(pretrained, "import_module", absent)
    text = catch_error(receiver, "hub:timm/resnet18.a1_in1k")
    assert "huggingface_hub is not installed. Run pip install 'septa[hub]', or give the path" in text


def test_the_real_hub_package_has_the_names_that_are_used() -> None:
    hub = pytest.importorskip("huggingface_hub")
    utils = pytest.importorskip("huggingface_hub.utils")
    assert callable(hub.hf_hub_download)
    assert issubclass(utils.EntryNotFoundError, Exception)
    assert issubclass(utils.LocalEntryNotFoundError, utils.EntryNotFoundError)
    assert issubclass(utils.HfHubHTTPError, Exception)
    assert issubclass(utils.RepositoryNotFoundError, utils.HfHubHTTPError)
