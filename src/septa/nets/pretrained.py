"""Published weights for an encoder to begin with. Only safetensors files are read, so nothing is unpickled."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from septa.errors import InputError
from septa.nets.resnet import ResNetEncoder
from septa.nets.timm_encoder import TimmEncoder

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of red, green and blue over ImageNet, in units in which the range of the dtype is 0..1."""
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviation, in the same units."""

_PICKLED = (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".tar")
_CONVERT = (
    'convert it where you trust it, with: python -c "import torch, safetensors.torch as s; '
    "s.save_file(torch.load('IN.pth', weights_only=True), 'OUT.safetensors')\""
)


ChannelStatistics = tuple[tuple[float, ...], tuple[float, ...]]


def imagenet_statistics(channels: int, expected: ChannelStatistics | None = None) -> ChannelStatistics:
    """Mean and standard deviation, one of each per channel, with which published encoders were trained.

    ``expected`` are those of red, green and blue that an encoder names itself; else ImageNet's are taken. Any other
    number of channels has no such meaning, so each channel gets the mean of the three values.

    Examples
    --------
    >>> imagenet_statistics(3)
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    >>> imagenet_statistics(1)
    ((0.449,), (0.226,))
    """
    expected = expected or (IMAGENET_MEAN, IMAGENET_STD)
    if channels == len(expected[0]):
        return expected
    mean, std = (round(math.fsum(values) / len(values), 6) for values in expected)
    return (mean,) * channels, (std,) * channels


def adapt_channels(weight_oikk: Tensor, channels: int) -> Tensor:
    """Weight of a first convolution on red, green and blue, for another number of channels.

    Channel ``i`` takes the weights of colour ``i % 3``, shared among the channels that take the same colour; one or
    two channels take the mean over the colours, times 3 / ``channels``. A grey image, repeated over all channels,
    so gives the response that it gives as a grey RGB image.

    Parameters
    ----------
    weight_oikk
        Float, ``(O, 3, K, K)``.
    channels
        Channels of the images, at least 1.

    Returns
    -------
    Tensor
        ``(O, channels, K, K)``.

    Examples
    --------
    >>> adapt_channels(torch.tensor([1.0, 2.0, 4.0]).reshape(1, 3, 1, 1), 4).flatten()
    tensor([0.5000, 2.0000, 4.0000, 0.5000])
    """
    if channels < 3:
        return weight_oikk.sum(1, keepdim=True).expand(-1, channels, -1, -1) / channels
    colours = [at % 3 for at in range(channels)]
    shares = torch.tensor([1 / colours.count(colour) for colour in colours], dtype=weight_oikk.dtype)
    return weight_oikk[:, colours] * shares[:, None, None]


def load_pretrained(encoder: ResNetEncoder | TimmEncoder, source: str) -> None:
    """Copy published weights into the ``body`` of an encoder; all or, after an error, none.

    Names and shapes must be those of the body. Only the classifier (``fc.*`` of a ResNet) is dropped, counters of
    batch norms (``num_batches_tracked``) may be missing, and the first convolution is adapted to the encoder's number
    of channels, see `adapt_channels`. No prefix is guessed.

    Parameters
    ----------
    encoder
        As `septa.nets.encoders.make_encoder` makes it.
    source
        Path of a safetensors file, or ``hub:OWNER/NAME`` for ``model.safetensors`` of a model on the Hugging Face hub,
        such as ``hub:timm/resnet18.a1_in1k``.

    Raises
    ------
    InputError
        The file cannot be had or read, is no safetensors file, holds other tensors, or NaN or Inf.
    """
    path = _from_hub(source) if source.startswith("hub:") else Path(source)
    _refuse_others(path, source)
    targets = encoder.body.state_dict()
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            wanted = {name: shape for name, shape in shapes.items() if name in targets or not encoder.is_spare(name)}
            _check_names(wanted, targets, source)
            _check_shapes(wanted, targets, encoder.first_convolution, source)
            found = {name: file.get_tensor(name) for name in wanted}
    except (SafetensorError, OSError, ValueError, KeyError) as error:  # KeyError: a dtype that torch lacks
        problem = f"is no safetensors file, or a damaged one ({' '.join(str(error).split())})"
        raise InputError(source, problem, "copy or download it again") from None
    for name, tensor in found.items():
        _check_values(name, tensor, targets[name], source)
    with torch.no_grad():
        for name, tensor in found.items():
            if tensor.shape != targets[name].shape:
                tensor = adapt_channels(tensor.float(), targets[name].shape[1])
            targets[name].copy_(tensor)


def _from_hub(source: str) -> Path:
    name = source.removeprefix("hub:")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise InputError(source, "is no name of the form hub:OWNER/NAME", "write for example hub:timm/resnet18.a1_in1k")
    try:
        hub, kinds = import_module("huggingface_hub"), import_module("huggingface_hub.errors")
    except ImportError:
        remedy = "pip install 'septa[hub]', or give the path of a .safetensors file"
        raise InputError(source, "the package huggingface_hub is not installed", remedy) from None
    remedy = "check the name and the connection, or give the path of a .safetensors file"
    errors = (OSError, ValueError, kinds.EntryNotFoundError, kinds.HfHubHTTPError)
    try:
        # What was downloaded before is taken as it is: no wait where there is no network.
        return Path(hub.hf_hub_download(name, "model.safetensors", local_files_only=True))
    except errors:
        pass
    try:
        return Path(hub.hf_hub_download(name, "model.safetensors"))
    except errors as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(source, f"model.safetensors cannot be downloaded ({reason})", remedy) from None


def _refuse_others(path: Path, source: str) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
        raise InputError(source, problem, "give the path of a .safetensors file, or hub:OWNER/NAME") from None
    pickled = head.startswith(b"PK\x03\x04") or (head[:1] == b"\x80" and head[8:9] != b"{")
    if pickled or path.suffix.lower() in _PICKLED:
        raise InputError(source, "is a pickle, which can execute what it holds and so is never read", _CONVERT)


def _check_names(found: Iterable[str], targets: Iterable[str], source: str) -> None:
    missing = [name for name in targets if name not in found and not name.endswith("num_batches_tracked")]
    unexpected = sorted(set(found) - set(targets))
    problems = [
        f"{word} {len(names)} tensors ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for word, names in (("lacks", missing), ("has unexpectedly", unexpected))
        if names
    ]
    if problems:
        remedy = "give the weights of the very net that net.encoder names, under its own names"
        raise InputError(source, " and ".join(problems), remedy)


def _check_shapes(found: Mapping[str, tuple[int, ...]], targets: Mapping[str, Tensor], first: str, source: str) -> None:
    for name, shape in found.items():
        expected = tuple(targets[name].shape)
        adaptable = name == first and len(shape) == 4 and shape == (expected[0], 3, *expected[2:])
        if shape != expected and not adaptable:
            problem = f"'{name}' has the shape {shape}, expected {expected}"
            raise InputError(source, problem, "give the weights of the net that net.encoder names")


def _check_values(name: str, tensor: Tensor, target: Tensor, source: str) -> None:
    if tensor.is_floating_point() != target.is_floating_point() or tensor.is_complex():
        problem = f"'{name}' has the type {str(tensor.dtype).removeprefix('torch.')}"
        raise InputError(source, problem, f"it must be as {str(target.dtype).removeprefix('torch.')}")
    if not torch.isfinite(tensor.to(target.dtype)).all():
        raise InputError(source, f"'{name}' holds NaN or Inf", "copy or download the file again")
    if name.endswith("running_var") and bool((tensor < 0).any()):
        raise InputError(source, f"'{name}' holds negative variances", "copy or download the file again")
