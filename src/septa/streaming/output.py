"""The output of a run and its work folder: what may be written, what is there already, and what is removed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from septa.errors import InputError
from septa.images import Source, check_outside_zarr, is_zarr, resolve_location, store
from septa.streaming.events import StreamRequest
from septa.streaming.identity import RunIdentity
from septa.streaming.plan import VERSION, StreamPlan

_PLAN = "plan.json"


def work_folder(output: Path) -> Path:
    """Return the folder of the finished blocks of an unfinished run, beside the output or the image around it."""
    around = find_image_around(output)
    if around is None:
        return output.with_name(f"{output.name}.work")
    inner = "_".join(output.absolute().relative_to(around).parts)
    return around.with_name(f"{around.name}.{inner}.work")


def find_image_around(output: Path) -> Path | None:
    """Return the outermost zarr folder that an output lies in; None if there is none."""
    return next((folder for folder in reversed(output.absolute().parents) if is_zarr(folder)), None)


def check_output(request: StreamRequest, source: Source) -> None:
    """Refuse an output that would replace or enter the input, or any other zarr image.

    Raises
    ------
    InputError
        The output is the input, a file of it, a folder that holds it, or lies in a zarr folder.
    """
    output = request.output.resolve()
    image = Path(resolve_location(request.input.path))
    is_part = image.is_file() and output in map(Path.resolve, source.list_files())
    if is_part or output in (image, *image.parents):
        problem = "the output is the input image, or a folder that holds it"
        raise InputError(request.output, problem, "Give -o another name")
    if not request.into_image:
        check_outside_zarr(request.output)


def is_finished(request: StreamRequest, identity: RunIdentity, folder: Path, files: Sequence[Path] = ()) -> bool:
    """Return True if the output of this request is complete already, with its ``files`` of objects.

    Raises
    ------
    InputError
        The output exists, is not one of this request, and ``overwrite`` is False; or it must not be replaced at all. Or
        the output is complete, but a file of its objects is missing.
    """
    output = request.output
    if not output.exists() or (output.is_dir() and store.is_free(output)):
        return False
    attributes = store.read_store_attributes(output) if output.is_dir() else {}
    if request.overwrite:
        if output.is_dir() and not attributes:
            problem = "the folder was not written by septa, so it is not replaced"
            raise InputError(output, problem, "Remove it, or give -o another name")
        return False
    if output.is_dir():
        is_same, is_complete = attributes.get("asked") == identity.digest, store.is_store_complete(output)
    else:
        expected = store.make_identifier("labels", identity.name, identity.attributes)
        is_same, is_complete = store.read_identifier(output) == expected, True
    if is_same and is_complete:
        if missing := [file for file in files if not file.exists()]:
            problem = f"this file is missing, but the output {output} is complete"
            raise InputError(missing[0], problem, "Give --overwrite to segment the image again and write both")
        shutil.rmtree(folder, ignore_errors=True)  # the earlier run may have been killed before it could do this
        return True
    if is_complete or not attributes or not (is_same or load_plan(folder)):
        problem = f"the output exists{_explain_difference(attributes, identity)}"
        raise InputError(output, problem, "Give --overwrite to replace it, or give -o another name")
    return False


def _explain_difference(attributes: dict[str, str], identity: RunIdentity) -> str:
    """Return how an output of septa differs from that of a request, as far as the output states it."""
    if "content" not in attributes:
        return ""
    if attributes["content"] != identity.content:
        return " and was written from another image or region, or before the image was changed"
    if attributes.get("model") != identity.model:
        return " and was written with another model"
    return " and was written from another path or with other settings"


def load_plan(folder: Path) -> StreamPlan | None:
    """Read the plan of an unfinished run; return None if there is none.

    Raises
    ------
    InputError
        The plan is damaged, or of a version of septa that did not identify the image.
    """
    file = folder / _PLAN
    if not file.exists():
        return None
    remedy = "Give --overwrite to start again, or remove the folder"
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(values, dict) and values.get("version") != VERSION and "asked" in values:
            problem = "the unfinished run in this folder is of another version of septa, so its image cannot be checked"
            raise InputError(folder, problem, remedy)
        return StreamPlan.from_json(values)
    except (OSError, ValueError) as error:
        raise InputError(folder, "the plan of the unfinished run in this folder cannot be read", remedy) from error


def remove_earlier_run(output: Path, folder: Path) -> None:
    """Remove an output and the work folder of an earlier run.

    The output is moved into a new work folder first. If a kill interrupts this, no half of an output remains.

    Raises
    ------
    InputError
        They cannot be removed.
    """
    try:
        _remove(folder)
        if output.exists() or output.is_symlink():
            folder.mkdir(parents=True)
            _remove(output.rename(folder / "replaced"))
    except OSError as error:
        problem = f"the old output cannot be removed ({error.strerror})"
        raise InputError(output, problem, "Check its permissions") from error


def _remove(path: Path) -> None:
    """Remove a file or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
