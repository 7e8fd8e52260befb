"""Edits as the page asks for them: each becomes a change of labels."""

from __future__ import annotations

from collections.abc import Callable

from septa.errors import InputError

from . import edits
from .document import Document
from .messages import EditRequest

FindChange = Callable[[edits.Int32], "edits.Change | None"]
"""Function from labels to the change of an edit."""
_OBJECT_TOOLS = ("delete", "merge", "split")


def plan_edit(document: Document, request: EditRequest) -> tuple[FindChange, int]:
    """Return the function that finds the change of an edit, and the id or class that it paints.

    Raises
    ------
    InputError
        The edit does not apply to the labels.
    """
    marks = document.marks
    if not marks.pixels:
        label = request.label or document.next_label
        return lambda labels_yx: _find_change(labels_yx, request, label), label
    if request.tool in _OBJECT_TOOLS:
        problem = f"the labels are classes of pixels, and the tool {request.tool} is for objects"
        raise InputError("", problem, "Use the Brush, the Eraser, the Polygon or Fill")
    label = request.label or 1
    if label >= len(marks.classes):
        raise InputError("", f"there is no class {label}", "Choose one of the list")
    painted = request.model_copy(update={"over": True})
    return lambda labels_yx: _find_change(labels_yx, painted, label), label


def _find_change(labels_yx: edits.Int32, request: EditRequest, label: int) -> edits.Change | None:
    """Find the change of an edit."""
    tool, points = request.tool, request.points
    size = labels_yx.shape[0], labels_yx.shape[1]
    if tool in ("delete", "merge"):
        if request.label is None or (tool == "merge" and request.into is None):
            raise InputError("", "no object is selected", "Click an object with the tool Select first")
        if tool == "merge" and request.into is not None:
            if request.into == request.label:
                raise InputError("", "the two objects are the same", "Click another object")
            return edits.merge(labels_yx, request.label, request.into)
        return edits.delete(labels_yx, request.label)
    if not points:
        raise InputError("", "the stroke has no points", "Draw on the image")
    if tool == "fill":
        return edits.fill(labels_yx, points[0])
    if tool == "split":
        return edits.split(labels_yx, points, max(label, int(labels_yx.max(initial=0)) + 1))
    if tool == "polygon":
        return edits.paint(labels_yx, *edits.draw_polygon(size, points), label, over=request.over)
    box, mask_yx = edits.draw_stroke(size, points, request.radius)
    if tool == "eraser":
        return edits.erase(labels_yx, box, mask_yx, request.label)
    return edits.paint(labels_yx, box, mask_yx, label, over=request.over)


def find_touched(document: Document, request: EditRequest, label: int) -> int | None:
    """Return the object that an edit leaves selected."""
    if request.tool in ("delete", "split"):
        return None
    if request.tool == "fill":
        return int(document.labels_yx[edits.locate(document.labels_yx, request.points[0])]) or None
    chosen = request.into if request.tool == "merge" else request.label if request.tool == "eraser" else label
    return chosen if chosen is not None and bool((document.labels_yx == chosen).any()) else None
