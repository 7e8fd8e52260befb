from .codes import number_of as number_of
from .codes import smallest as smallest
from .components import label_components as label_components
from .mapping import IGNORE as IGNORE
from .mapping import LabelMapping as LabelMapping
from .mapping import find_mapping as find_mapping
from .object_labels import ObjectLabels as ObjectLabels
from .raw_classes import read_object_classes as read_object_classes
