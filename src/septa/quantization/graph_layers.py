"""The convolutions of a net as operations of its OpenVINO graph, and steps from operation to operation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

KINDS = ("Convolution", "ConvolutionBackpropData")
"""Operations of the graph for a convolution and for a transposed convolution."""
_CUTS = ("Slice", "StridedSlice")


def match_convolutions(net: nn.Module, graph: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each convolution of a net with its operation in the graph.

    They are matched by their weights. Convolutions whose weights occur twice in the net or in the graph are left out.

    Parameters
    ----------
    net
        The net.
    graph
        OpenVINO's graph of it. Operations are valid only as long as the graph exists.
    """
    convs = [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
    ops = [op for op in graph.get_ordered_ops() if op.get_type_name() in KINDS]
    ops = [op for op in ops if find_producer(op, 1).get_type_name() == "Constant"]
    same = np.array(
        [[np.array_equal(conv.weight.numpy(force=True), find_producer(op, 1).data) for op in ops] for conv in convs]
    )
    for row, column in np.argwhere(same.reshape(len(convs), len(ops))):
        if same[row].sum() == same[:, column].sum() == 1:
            yield convs[row], ops[column]


def find_producer(op: Any, index: int) -> Any:
    """Return the operation whose output is input number ``index`` of ``op``."""
    return op.input_value(index).get_node()


def find_consumers(op: Any) -> list[tuple[Any, int]]:
    """Return the operations that read the output of ``op``, each with the number of its input.

    Operations that only read its shape are left out.
    """
    readers = [(target.get_node(), target.get_index()) for target in op.output(0).get_target_inputs()]
    return [(reader, index) for reader, index in readers if reader.get_type_name() != "ShapeOf"]


def is_crop(op: Any) -> bool:
    """Return True if an operation crops rows and columns, as skip connections of valid nets do, and no channels."""
    if op.get_type_name() not in _CUTS:
        return False
    before = op.get_input_partial_shape(0)[1]
    after = op.get_output_partial_shape(0)[1]
    return bool(before.is_static and after.is_static and before == after)


def find_bias(op: Any) -> tuple[Any, int, NDArray[Any]] | None:
    """Return the operation that adds a layer's bias, the number of the input for the bias, and its values.

    Return None if the layer has no bias.
    """
    readers = find_consumers(op)
    if len(readers) != 1 or readers[0][0].get_type_name() != "Add":
        return None
    add, index = readers[0]
    other = find_producer(add, 1 - index)
    while other.get_type_name() == "Reshape":
        other = find_producer(other, 0)
    return (add, 1 - index, other.data) if other.get_type_name() == "Constant" else None


def set_constant(op: Any, index: int, array: Any) -> None:
    """Replace input number ``index`` of an operation by a constant."""
    from openvino import opset13 as operations

    op.input(index).replace_source_output(operations.constant(array).output(0))
