from .access import Access as Access
from .serve import AppOptions as AppOptions
from .serve import run_app as run_app
from .server import make_server as make_server
from .workspace import Workspace as Workspace
