from .locate import locate_model as locate_model
from .shipped import ShippedModel as ShippedModel
from .shipped import describe_names as describe_names
from .shipped import find_example_images as find_example_images
from .shipped import find_shipped as find_shipped
from .shipped import get_shipped as get_shipped
from .shipped import list_shipped as list_shipped
from .shipped import make_models_table as make_models_table
