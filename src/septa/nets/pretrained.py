"""Published weights as the initial weights of an encoder. Only safetensors files are read: nothing is unpickled."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from septa.errors import InputError, format_count
from septa.nets.resnet import ResNetEncoder
from septa.nets.timm_encoder import TimmEncoder

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of red, green and blue over ImageNet, in units in which the range of the dtype is 0..1."""
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviation of red, green and blue over ImageNet, in the same units."""

ChannelStatistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation, one of each per channel."""

_PICKLE_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".tar")
_CONVERT = (
    'If you trust the file, convert it with: python -c "import torch, safetensors.torch as s; '
    "s.save_file(torch.load('IN.pth', weights_only=True), 'OUT.safetensors')\""
)
_OTHER_NETWORK = "Give the weights of the network that net.encoder names, under their published names"
_DAMAGED = "Copy or download the file again"


def imagenet_statistics(channels: int, expected: ChannelStatistics | None = None) -> ChannelStatistics:
    """Return the mean and standard deviation of each channel with which published encoders were trained.

    For any number of channels other than three, each channel gets the mean of the values of red, green and blue.

    Parameters
    ----------
    channels
        Number of channels of the images.
    expected
        Mean and standard deviation of red, green and blue that the encoder states itself. ImageNet's if None.

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
    """Adapt the weight of a convolution that reads the image to another number of channels.

    Of C channels that the weight is for, channel ``i`` gets the weights of channel ``i % C``, divided by the number of
    channels with the same weights. Fewer channels than C get the mean over all C, times C / ``channels``. A grey image
    that is repeated over all channels therefore gives the same response before and after.

    Parameters
    ----------
    weight_oikk
        Float, ``(O, C, K, K)``.
    channels
        Number of channels of the images, at least 1.

    Returns
    -------
    Tensor
        Adapted weight, ``(O, channels, K, K)``.

    Examples
    --------
    >>> adapt_channels(torch.tensor([1.0, 2.0, 4.0]).reshape(1, 3, 1, 1), 4).flatten()
    tensor([0.5000, 2.0000, 4.0000, 0.5000])
    >>> adapt_channels(torch.tensor([1.0, 2.0, 4.0]).reshape(1, 3, 1, 1), 1).flatten()
    tensor([7.])
    """
    known = weight_oikk.shape[1]
    if channels < known:
        return weight_oikk.sum(1, keepdim=True).expand(-1, channels, -1, -1) / channels
    sources = [channel % known for channel in range(channels)]
    shares = torch.tensor([1 / sources.count(source) for source in sources], dtype=weight_oikk.dtype)
    return weight_oikk[:, sources] * shares[:, None, None]


def load_pretrained(encoder: ResNetEncoder | TimmEncoder, source: str) -> None:
    """Copy published weights into the ``body`` of an encoder; after an error the encoder is unchanged.

    Names and shapes must be those of the body. Only the classifier (``fc.*`` of a ResNet) is left out, counters of
    batch norms (``num_batches_tracked``) may be missing, and the first convolution is adapted to the encoder's number
    of channels, see `adapt_channels`. No prefix of names is guessed.

    Parameters
    ----------
    encoder
        Encoder as `septa.nets.encoders.make_encoder` builds it. Its body is changed.
    source
        Path of a safetensors file, or ``hub:OWNER/NAME`` for ``model.safetensors`` of a model on the Hugging Face hub,
        such as ``hub:timm/resnet18.a1_in1k``.

    Raises
    ------
    InputError
        The file cannot be downloaded or read, is not a safetensors file, contains other tensors, or NaN or Inf.
    """
    path = _download(source) if source.startswith("hub:") else Path(source)
    _check_format(path, source)
    targets = encoder.body.state_dict()
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            used = {name: shape for name, shape in shapes.items() if name in targets or not encoder.is_spare(name)}
            _check_names(used, targets, source)
            _check_shapes(used, targets, encoder.first_convolution, source)
            found = {name: file.get_tensor(name) for name in used}
    # A KeyError comes from a dtype that torch does not have.
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise InputError(source, "the file is not a safetensors file, or is damaged", _DAMAGED) from error
    for name, tensor in found.items():
        _check_values(name, tensor, targets[name], source)
    with torch.no_grad():
        for name, tensor in found.items():
            if tensor.shape != targets[name].shape:
                tensor = adapt_channels(tensor.float(), targets[name].shape[1])
            targets[name].copy_(tensor)


def _download(source: str) -> Path:
    """Return the path of ``model.safetensors`` of a model on the Hugging Face hub, downloaded if it is not cached."""
    name = source.removeprefix("hub:")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        problem = "the name of a model on the hub must have the form hub:OWNER/NAME"
        raise InputError(source, problem, "Write for example hub:timm/resnet18.a1_in1k")
    try:
        hub = import_module("huggingface_hub")
        kinds = import_module("huggingface_hub.utils")
    except ImportError:
        remedy = "Run pip install 'septa[hub]', or give the path of a .safetensors file"
        raise InputError(source, "the package huggingface_hub is not installed", remedy) from None
    errors = (OSError, ValueError, kinds.EntryNotFoundError, kinds.HfHubHTTPError)
    try:
        # A file in the cache is used unchanged, so that there is no delay without a network.
        return Path(hub.hf_hub_download(name, "model.safetensors", local_files_only=True))
    except errors:
        pass
    try:
        return Path(hub.hf_hub_download(name, "model.safetensors"))
    except errors as error:
        # LocalEntryNotFoundError is a subclass of EntryNotFoundError.
        if isinstance(error, kinds.LocalEntryNotFoundError):
            problem = "the Hugging Face hub cannot be reached"
        elif isinstance(error, kinds.EntryNotFoundError):
            problem = "this model has no file model.safetensors"
        elif isinstance(error, kinds.RepositoryNotFoundError):
            problem = "the Hugging Face hub has no public model of this name"
        else:
            problem = "model.safetensors cannot be downloaded"
        remedy = "Check the name and the connection, or give the path of a .safetensors file"
        raise InputError(source, problem, remedy) from error


def _check_format(path: Path, source: str) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        problem = f"the file cannot be read ({error.strerror})"
        raise InputError(source, problem, "Give the path of a .safetensors file, or hub:OWNER/NAME") from None
    is_pickle = head.startswith(b"PK\x03\x04") or (head[:1] == b"\x80" and head[8:9] != b"{")
    if is_pickle or path.suffix.lower() in _PICKLE_SUFFIXES:
        problem = "the file is a pickle, which can execute code when it is opened, so septa does not read it"
        raise InputError(source, problem, _CONVERT)


def _check_names(found: Iterable[str], targets: Iterable[str], source: str) -> None:
    missing = [name for name in targets if name not in found and not name.endswith("num_batches_tracked")]
    unexpected = sorted(set(found) - set(targets))
    problems = []
    if missing:
        problems.append(f"lacks {_list_names(missing, 'tensor')}")
    if unexpected:
        problems.append(f"has {_list_names(unexpected, 'unexpected tensor')}")
    if problems:
        raise InputError(source, f"the file {' and '.join(problems)}", _OTHER_NETWORK)


def _list_names(names: list[str], noun: str) -> str:
    """Return the number of names and the first three of them, such as ``4 tensors (a, b, c, ...)``."""
    more = ", ..." if len(names) > 3 else ""
    return f"{format_count(len(names), noun)} ({', '.join(names[:3])}{more})"


def _check_shapes(found: Mapping[str, tuple[int, ...]], targets: Mapping[str, Tensor], first: str, source: str) -> None:
    for name, shape in found.items():
        expected = tuple(targets[name].shape)
        is_adaptable = name == first and len(shape) == 4 and shape == (expected[0], 3, *expected[2:])
        if shape != expected and not is_adaptable:
            problem = f"the tensor '{name}' has the shape {shape}, expected {expected}"
            raise InputError(source, problem, _OTHER_NETWORK)


def _check_values(name: str, tensor: Tensor, target: Tensor, source: str) -> None:
    if tensor.is_floating_point() != target.is_floating_point() or tensor.is_complex():
        kind = "a floating-point" if target.is_floating_point() else "an integer"
        problem = f"the tensor '{name}' has the type {str(tensor.dtype).removeprefix('torch.')}, expected {kind} type"
        raise InputError(source, problem, _OTHER_NETWORK)
    if not torch.isfinite(tensor.to(target.dtype)).all():
        raise InputError(source, f"the tensor '{name}' contains NaN or Inf", _DAMAGED)
    if name.endswith("running_var") and bool((tensor < 0).any()):
        raise InputError(source, f"the tensor '{name}' contains negative variances", _DAMAGED)
