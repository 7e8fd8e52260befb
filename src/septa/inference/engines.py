"""What executes a net: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from septa.errors import ResourceError

Engine = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Takes a normalised image ``CYX`` float32, returns logits ``KYX`` float32: of the same size, or less a valid net's
margin on each side."""


def torch_engine(net: nn.Module, device: torch.device | str = "cpu") -> Engine:
    """Execute ``net`` with PyTorch in float32 on ``device``.

    The net is moved there and switched to evaluation. On a GPU, convolutions use TF32 where PyTorch does by default.
    A net tells by ``steady_pixels`` below which size PyTorch's CPU kernels for a single image depend on the size; such
    windows run as a batch of two, which takes the kernels of large ones, so that small tiles are exact as well.

    Raises
    ------
    ResourceError
        By the engine: the memory of the device does not suffice for this size.
    """
    device = torch.device(device)
    steady_pixels = int(getattr(net, "steady_pixels", 0)) if device.type == "cpu" else 0
    net = net.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    def run(image_cyx: NDArray[np.float32]) -> NDArray[np.float32]:
        image_bcyx = torch.from_numpy(np.ascontiguousarray(image_cyx))[None].to(device)
        try:
            with torch.inference_mode():
                if image_bcyx[0, 0].numel() < steady_pixels:
                    image_bcyx = image_bcyx.expand(2, -1, -1, -1)
                logits = net(image_bcyx.contiguous(memory_format=torch.channels_last))
                out: NDArray[np.float32] = logits[0].float().contiguous().cpu().numpy()
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise _out_of_memory(image_cyx.shape) from error
        except RuntimeError as error:
            if "memory" in str(error):  # the CPU allocator has no exception of its own
                raise _out_of_memory(image_cyx.shape) from error
            raise
        return out

    return run


def _out_of_memory(shape: tuple[int, ...]) -> ResourceError:
    size = f"{shape[1]} x {shape[2]}"
    return ResourceError("memory", f"does not suffice for a tile of {size} pixels", "give a smaller --tile")
