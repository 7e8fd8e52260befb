from .container import MissingReaderError as MissingReaderError
from .nifti import is_compressed_nifti as is_compressed_nifti
from .nifti import is_nifti as is_nifti
from .read import CONTAINER_FORMATS as CONTAINER_FORMATS
from .read import CONTAINER_SUFFIXES as CONTAINER_SUFFIXES
from .read import count_scenes as count_scenes
from .read import read_container_info as read_container_info
from .read import read_container_page as read_container_page
