from .bar import ProgressBar as ProgressBar
from .bar import is_notebook as is_notebook
from .bar import progress as progress
from .event import ProgressCallback as ProgressCallback
from .event import ProgressEvent as ProgressEvent
from .event import report_counts as report_counts
