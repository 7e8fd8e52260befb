from .classes import find_classes_folder as find_classes_folder
from .classes import pair_classes as pair_classes
from .folder_layout import LAYOUTS as LAYOUTS
from .folder_layout import FilePair as FilePair
from .folder_layout import FolderLayout as FolderLayout
from .patterns import pair_patterns as pair_patterns
from .recognize import recognise_layout as recognise_layout
