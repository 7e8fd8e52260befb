from .formats import expand_outlines as expand_outlines
from .formats import get_file as get_file
from .formats import is_inside_file as is_inside_file
from .formats import is_outlines as is_outlines
from .read import read_outline_size as read_outline_size
from .read import read_outlines as read_outlines
