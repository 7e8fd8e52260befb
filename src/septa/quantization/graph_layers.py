"""Which convolutions of a net are which operations of its graph, as OpenVINO reads it, and how graphs are walked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

KINDS = ("Convolution", "ConvolutionBackpropData")
"""The operations that a convolution and a transposed one become."""
_CUTS = ("Slice", "StridedSlice")


def match_convolutions(net: nn.Module, graph: Any) -> Iterator[tuple[Any, Any]]:
    """Convolutions of a net, each with its operation in the graph: that of the same weights, which no other has."""
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
    """What gives an operation its input of this number."""
    return op.input_value(index).get_node()


def find_consumers(op: Any) -> list[tuple[Any, int]]:
    """The operations that read what one gives, but for those that ask for its size; and as which input."""
    readers = [(target.get_node(), target.get_index()) for target in op.output(0).get_target_inputs()]
    return [(reader, index) for reader, index in readers if reader.get_type_name() != "ShapeOf"]


def is_crop(op: Any) -> bool:
    """Whether an operation cuts rows and columns, as those of valid nets' skip connections do, and no channels."""
    if op.get_type_name() not in _CUTS:
        return False
    before, after = (shape[1] for shape in (op.get_input_partial_shape(0), op.get_output_partial_shape(0)))
    return bool(before.is_static and after.is_static and before == after)


def find_bias(op: Any) -> tuple[Any, int, NDArray[Any]] | None:
    """The operation that adds a layer's bias, which of its inputs that is, and its values; None where none does."""
    readers = find_consumers(op)
    if len(readers) != 1 or readers[0][0].get_type_name() != "Add":
        return None
    add, index = readers[0]
    given = find_producer(add, 1 - index)
    while given.get_type_name() == "Reshape":
        given = find_producer(given, 0)
    return (add, 1 - index, given.data) if given.get_type_name() == "Constant" else None


def set_constant(op: Any, index: int, array: Any) -> None:
    """Let an operation read a constant."""
    from openvino import opset13 as operations

    op.input(index).replace_source_output(operations.constant(array).output(0))
