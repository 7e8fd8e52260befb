from .results import find_reader as find_reader
from .widget import SegmentWidget as SegmentWidget
