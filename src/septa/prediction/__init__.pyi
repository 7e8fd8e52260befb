from .find import InputImage as InputImage
from .find import expand_images as expand_images
from .find import find_images as find_images
from .options import EXACT as EXACT
from .options import FailedFile as FailedFile
from .options import Options as Options
from .options import SegmentedFile as SegmentedFile
from .run import segment_files as segment_files
