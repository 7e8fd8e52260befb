"""The OpenAPI document of the interface: a line for each request, and the schemas of what goes in and comes out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from septa import __version__

from . import learning_messages as learning
from . import messages
from .access import TOKEN_HEADER, UPLOAD

_SCHEMAS = "#/components/schemas/{model}"
_PARAMETER = re.compile(r"{(\w+)(?::(?:int|path))?}")


@dataclass(frozen=True)
class Operation:
    """A request of the interface.

    Attributes
    ----------
    summary
        What it does, or what it returns.
    answer
        Model of the answer; the media type of an answer that is not JSON; None for JSON without a model.
    body
        Model of the body; None if it has none.
    many
        True if the answer is a list of ``answer``.
    """

    summary: str
    answer: type[BaseModel] | str | None = None
    body: type[BaseModel] | None = None
    many: bool = False


_IMAGE = "/api/images/{name}"
_TRAINING = "/api/trainings/{number:int}"
_TILE = "{level:int}/{row:int}/{column:int}"
_LABELS = messages.LabelsAnswer
_TRAINED = learning.TrainingAnswer

OPERATIONS: dict[str, Operation] = {
    "GET /api/session": Operation(f"Version, folder, and the value of the header {TOKEN_HEADER}"),
    "GET /api/openapi.json": Operation("This document"),
    "GET /api/images": Operation("The images of the folder, with their marks", messages.ImageAnswer, many=True),
    "GET /api/models": Operation("The models that can be chosen", learning.ModelAnswer, many=True),
    "GET /api/jobs": Operation("Predictions that have ended, run and wait", messages.JobAnswer, many=True),
    "POST /api/jobs/{number:int}/cancel": Operation("Cancel a prediction", messages.JobAnswer),
    f"GET {_IMAGE}": Operation("Open an image: levels, channels, and its labels", messages.PictureAnswer),
    f"GET {_IMAGE}/thumbnail": Operation("A small picture of the image", "image/png"),
    f"GET {_IMAGE}/tiles/{_TILE}": Operation(
        "Samples of a tile, CYX, little endian; X-Shape has the size", "application/octet-stream"
    ),
    f"GET {_IMAGE}/labels": Operation("The state of the labels", _LABELS),
    f"GET {_IMAGE}/labels/{_TILE}": Operation(
        "Object ids of a tile, int32 YX, with one more pixel on each side", "application/octet-stream"
    ),
    f"GET {_IMAGE}/objects": Operation("Measurements of the objects", messages.ObjectsAnswer),
    f"GET {_IMAGE}/export/{{kind}}": Operation("A file to take away", "application/octet-stream"),
    "GET /api/models/{name}/file": Operation("A model file", "application/octet-stream"),
    "GET /api/health": Operation("Say that the server answers"),
    f"POST {UPLOAD}{{name:path}}": Operation("Add an image to the folder; the body is the file"),
    f"POST {_IMAGE}/cut": Operation("Save a part of the image as an image of its own", None, messages.CutRequest),
    f"POST {_IMAGE}/segment": Operation("Segment the image with a model", messages.JobAnswer, messages.SegmentRequest),
    f"POST {_IMAGE}/decode": Operation("Find the objects with other thresholds", _LABELS, messages.DecodeRequest),
    f"POST {_IMAGE}/edit": Operation("Make one edit of the labels", _LABELS, messages.EditRequest),
    f"POST {_IMAGE}/undo": Operation("Undo the last edit", _LABELS, messages.ChangeRequest),
    f"POST {_IMAGE}/redo": Operation("Do the last undone edit again", _LABELS, messages.ChangeRequest),
    f"POST {_IMAGE}/check": Operation("Mark the image, or an area of it, as checked", _LABELS, messages.CheckRequest),
    f"POST {_IMAGE}/overwrite": Operation("Replace a label file that septa did not write; a copy stays", _LABELS),
    f"POST {_IMAGE}/reload": Operation("Take the label file instead of the labels of the app", _LABELS),
    "POST /api/training-folder": Operation(
        "Write the folder of checked images for septa train", messages.TrainingFolderAnswer
    ),
    "GET /api/trainings": Operation("All trainings, without their curves", _TRAINED, many=True),
    "POST /api/trainings": Operation("Train on what is checked", _TRAINED, learning.OrderRequest),
    f"GET {_TRAINING}": Operation("A training with its curve", _TRAINED),
    f"GET {_TRAINING}/previews/{{place:int}}": Operation(
        "A validation image: ground truth at the left, prediction at the right", "image/png"
    ),
    f"POST {_TRAINING}/stop": Operation("Stop a training; it can be resumed", _TRAINED),
    f"POST {_TRAINING}/resume": Operation("Resume a training that was stopped or has failed", _TRAINED),
    f"POST {_TRAINING}/remove": Operation(
        "Remove the record of a training; a finished model stays", _TRAINED, many=True
    ),
    "GET /api/suggestions": Operation("Unchecked images, the least sure first", learning.SuggestionsAnswer),
    "POST /api/suggestions": Operation("Rank the unchecked images", messages.JobAnswer, learning.ModelRequest),
    "GET /api/suspects": Operation("Labels that a model contradicts", learning.SuspectsAnswer),
    "POST /api/suspects": Operation("Search for suspect labels", messages.JobAnswer, learning.ModelRequest),
}
"""Method and route of each request."""


def make_openapi() -> dict[str, Any]:
    """Return the document, OpenAPI 3.1, as plain JSON values."""
    models = {(one.body, "validation") for one in OPERATIONS.values() if one.body is not None}
    answers = {one.answer for one in OPERATIONS.values() if isinstance(one.answer, type)}
    wanted = sorted({*models, *((one, "serialization") for one in answers)}, key=lambda pair: pair[0].__name__)
    _, schemas = models_json_schema(wanted, ref_template=_SCHEMAS)  # type: ignore[arg-type]
    schemas["$defs"]["Error"] = {
        "type": "object",
        "properties": {"error": {"type": "string"}, "confirm": {"type": "boolean"}, "stale": {"type": "boolean"}},
        "required": ["error"],
    }
    paths: dict[str, dict[str, Any]] = {}
    for key, operation in OPERATIONS.items():
        method, _, route = key.partition(" ")
        paths.setdefault(_PARAMETER.sub(r"{\1}", route), {})[method.lower()] = _describe(method, route, operation)
    header = {"type": "apiKey", "in": "header", "name": TOKEN_HEADER}
    return {
        "openapi": "3.1.0",
        "info": {"title": "septa app", "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas["$defs"], "securitySchemes": {"page": header}},
    }


def _describe(method: str, route: str, operation: Operation) -> dict[str, Any]:
    answer: dict[str, Any] = {"application/json": {}}
    if isinstance(operation.answer, str):
        answer = {operation.answer: {}}
    elif operation.answer is not None:
        one = {"$ref": _SCHEMAS.format(model=operation.answer.__name__)}
        answer = {"application/json": {"schema": {"type": "array", "items": one} if operation.many else one}}
    refused = {"$ref": _SCHEMAS.format(model="Error")}
    found: dict[str, Any] = {
        "summary": operation.summary,
        "parameters": [
            {
                "name": match[1],
                "in": "path",
                "required": True,
                "schema": {"type": "integer" if match[0].endswith(":int}") else "string"},
            }
            for match in _PARAMETER.finditer(route)
        ],
        "responses": {
            "200": {"description": operation.summary, "content": answer},
            "4XX": {"description": "The request is refused", "content": {"application/json": {"schema": refused}}},
            "507": {"description": "Disk or memory is full", "content": {"application/json": {"schema": refused}}},
        },
    }
    if method != "GET":
        found["security"] = [{"page": []}]
    if operation.body is not None:
        schema = {"$ref": _SCHEMAS.format(model=operation.body.__name__)}
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return found
