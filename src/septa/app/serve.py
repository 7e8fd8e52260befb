"""The command: open a folder, bind a socket, start the server, and open the browser."""

from __future__ import annotations

import re
import socket
import threading
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from septa.errors import InputError, ModelError
from septa.images import write_bytes
from septa.pretrained import find_shipped, list_shipped, locate_model

from .models import ModelChoice

PORT = 8717
"""Port that is tried first."""
EXAMPLES = "septa-examples"
"""Folder of example images, made in the current folder if no folder is given."""
_LOCAL = ("127.0.0.1", "localhost", "::1")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,}")


@dataclass(frozen=True, kw_only=True)
class AppOptions:
    """Options of the app.

    Attributes
    ----------
    folder
        Folder of images; None for a new folder of example images.
    model
        Model file or name of a shipped model that is chosen first; None for the first of the list.
    host, port
        Address to listen at; None for a free port.
    token
        Token that a browser must show once; needed if other machines can reach the host.
    browser
        True to open the page in the browser.
    """

    folder: Path | None = None
    model: str | None = None
    host: str = "127.0.0.1"
    port: int | None = None
    token: str | None = None
    browser: bool = True


def run_app(options: AppOptions, say: Callable[[str], None]) -> None:
    """Serve a folder until the process is stopped by Ctrl-C or SIGTERM; everything is saved then.

    Parameters
    ----------
    options
        Options.
    say
        Function that receives each line for the user.

    Raises
    ------
    InputError
        A package is missing, an option does not fit, or the port is in use.
    """
    _check_packages()
    _check_token(options)
    model = None if options.model is None else find_model(options.model)
    folder = options.folder if options.folder is not None else _write_examples(say)
    import uvicorn

    from .access import Access
    from .server import make_server
    from .workspace import Workspace

    bound = bind(options.host, options.port)
    with bound:
        workspace = Workspace(folder, model)
        workspace.predictions.warm()
        port = bound.getsockname()[1]
        name = f"[{options.host}]" if ":" in options.host else options.host
        address = f"http://{name}:{port}/"
        server = make_server(workspace, Access.make(options.host, port, options.token))
        say(f"septa app: {folder} at {address}{'?token=TOKEN' if options.token else ''} (Ctrl-C stops it)")
        if options.host not in _LOCAL:
            say("other machines can reach the page; the token and all images cross the network without encryption")
        if options.browser:
            opened = f"{address}?token={options.token}" if options.token else address
            threading.Timer(0.5, webbrowser.open, [opened]).start()
        config = uvicorn.Config(
            server, log_level="warning", access_log=False, ws="none", server_header=False, timeout_graceful_shutdown=5
        )
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[bound])
    say("stopped; all labels are saved")


def find_model(name: str) -> ModelChoice:
    """Return the model of a file or of a shipped model's name.

    Raises
    ------
    ModelError
        There is no such model.
    """
    path = locate_model(name)
    if not path.is_file():
        raise ModelError(name, "there is no such model file or shipped model", "Give a .septa file")
    is_shipped = find_shipped(name) == path
    return ModelChoice(name=name if is_shipped else path.name, path=path, origin="septa" if is_shipped else "--model")


def bind(host: str, port: int | None) -> socket.socket:
    """Bind a socket; without a port to `PORT`, or to any free port.

    Raises
    ------
    InputError
        The host is not one of this machine, or the port is in use.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in (PORT, 0) if port is None else (port,):
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, number))
            bound.listen(128)
            return bound
        except socket.gaierror:
            bound.close()
            raise InputError(f"--host {host}", "the host has no address", "Give an address of this machine") from None
        except OSError as error:
            bound.close()
            problem = f"the server cannot listen there ({error.strerror})"
            if port is not None or number == 0:
                where = f"--port {port}" if port is not None else f"--host {host}"
                raise InputError(where, problem, "Give another --port, or an address of this machine") from None
    raise AssertionError("a port is always tried")


def _check_packages() -> None:
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        problem = f"the package {(error.name or 'starlette').partition('.')[0]} is not installed"
        raise InputError("septa app", problem, "Run pip install 'septa[app]'") from None


def _check_token(options: AppOptions) -> None:
    if options.token is None and options.host not in _LOCAL:
        problem = "other machines could read and change all images of the folder"
        raise InputError(f"--host {options.host}", problem, "Give --token as well, or leave --host out")
    if options.token is not None and not _TOKEN.fullmatch(options.token):
        problem = "the token must have at least 16 letters, digits, - or _"
        raise InputError("--token", problem, "Give a long random one, such as that of 'openssl rand -hex 16'")


def _write_examples(say: Callable[[str], None]) -> Path:
    """Write the example images of the shipped models to a folder in the current one."""
    folder = Path(EXAMPLES)
    found = {path.name: path for one in list_shipped() if one.examples for path in one.examples.glob("images/*.png")}
    if not found and not folder.is_dir():
        raise InputError("septa app", "the folder of images is missing", "Give one, such as: septa app my-images")
    for name, path in found.items():
        if not (folder / name).exists():
            write_bytes(folder / name, path.read_bytes())
    say(f"example images: {folder}")
    return folder
