from .dataset import CellDrawing as CellDrawing
from .dataset import ScanDrawing as ScanDrawing
from .dataset import ShapeDrawing as ShapeDrawing
from .dataset import draw_cells as draw_cells
from .dataset import draw_oct as draw_oct
from .dataset import draw_shapes as draw_shapes
from .dataset import write_dataset as write_dataset
from .shapes import SHAPE_NAMES as SHAPE_NAMES
