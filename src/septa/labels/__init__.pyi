from .components import label_components as label_components
from .detect import find_mapping as find_mapping
from .mapping import LabelMapping as LabelMapping
from .object_labels import ObjectLabels as ObjectLabels
from .raw_classes import read_object_classes as read_object_classes
