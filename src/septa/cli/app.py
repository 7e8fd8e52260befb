"""``septa app``: Open a folder of images in the browser: segment, correct, take away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from septa.cli.commands import INPUT, RUN
from septa.cli.options import argument, make_console, option
from septa.cli.values import whole_number, word

EXAMPLE = "septa app my-images --model cells.septa"


def app(
    folder: Annotated[
        Path | None, argument("FOLDER", "Folder of images. Without it, example images are written and opened.")
    ] = None,
    model: Annotated[
        str | None,
        option(
            "--model",
            heading=INPUT,
            kind=word("MODEL", "cells.septa"),
            help="Model that is chosen first: a file, or the name of a shipped model.",
        ),
    ] = None,
    port: Annotated[
        int | None,
        option(
            "--port",
            heading=RUN,
            kind=whole_number(least=1, most=65535, example=8717),
            help="Port of the page. By default 8717, or a free one.",
        ),
    ] = None,
    browser: Annotated[
        bool, option("--browser/--no-browser", heading=RUN, help="Open the page in the browser. On by default.")
    ] = True,
    host: Annotated[
        str,
        option(
            "--host",
            heading=RUN,
            kind=word("HOST", "0.0.0.0"),
            help="Address to listen at. Any other needs --token, because other machines can reach it.",
        ),
    ] = "127.0.0.1",
    token: Annotated[
        str | None,
        option(
            "--token",
            heading=RUN,
            kind=word("TOKEN", "a long random word"),
            help="Token that a browser must show once.",
        ),
    ] = None,
) -> None:
    """Segment images in the browser, and correct the result.

    The page shows the images of a folder with the objects that a model finds. Objects can be painted, erased, split,
    merged and deleted. Every change is saved at once to FOLDER/labels; images are never changed.
    """
    from septa.app import AppOptions, run_app
    from septa.display import say

    console = make_console()
    options = AppOptions(folder=folder, model=model, host=host, port=port, token=token, browser=browser)
    run_app(options, lambda line: say(console, line))
