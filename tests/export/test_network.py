"""The exported module in ONNX Runtime and TorchScript: the nets' own outputs, at sizes that it was not traced for."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from septa.export.network import ExportNet
from septa.images import Normalization
from septa.inference import write_graph
from septa.nets import UNet
from septa.tasks import OutputGroup

pytestmark = pytest.mark.usefixtures("one_thread")

GROUPS = (OutputGroup("softmax", ("background", "a")), OutputGroup("sigmoid", ("b",)))
NORMALIZATION = Normalization("dataset", (30.0, -4.0), (7.0, -0.5), curve=20.0, clip=3.0)


def expect(nets: list[UNet], image_bcyx: np.ndarray) -> np.ndarray:
    """Compute the outputs in float64, by the definitions."""
    with torch.inference_mode():
        normalized = [NORMALIZATION.apply(image_cyx) for image_cyx in image_bcyx]
        parts = []
        for net in nets:
            logits = net(torch.from_numpy(np.stack(normalized))).double().numpy()
            exp = np.exp(logits[:, :2])
            parts.append(np.concatenate([exp / exp.sum(1, keepdims=True), 1 / (1 + np.exp(-logits[:, 2:]))], axis=1))
    return np.mean(parts, axis=0)


@pytest.mark.parametrize("family", ["plain", "attention", "valid", "resnet"], indirect=True)
def test_runtimes_compute_the_net_at_any_size_and_batch(family: dict[str, Any], member: UNet) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnx", reason="onnx is not installed")
    nets = [member, member] if not family else [member]
    module = ExportNet(nets, NORMALIZATION, GROUPS).eval().requires_grad_(False)
    side = member.valid_size(32 if member.depth < 4 else 64)
    probe = torch.randn(2, 2, side, side)
    graph = write_graph(module, probe, {"image": "BYX", "probabilities": "BYX"}, operators=17)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        data = io.BytesIO()
        torch.jit.save(torch.jit.trace(module, probe, check_trace=False), data)
        traced = torch.jit.load(io.BytesIO(data.getvalue()))
    rng = np.random.default_rng(0)
    for batch, size in ((1, (1, 1)), (3, (int(rng.integers(2, 90)), 50)), (1, (64, int(rng.integers(65, 140))))):
        shape = tuple(member.input_size(length) for length in size)
        image_bcyx = (rng.normal(size=(batch, 2, *shape)) * 10 + 20).astype(np.float32)
        expected = expect(nets, image_bcyx)
        for outputs in (session.run(None, {"image": image_bcyx})[0], traced(torch.from_numpy(image_bcyx)).numpy()):
            assert outputs.shape == expected.shape
            np.testing.assert_allclose(outputs, expected, atol=5e-5)
