from .curves import curves as curves
from .panels import grid as grid
from .panels import panels as panels
