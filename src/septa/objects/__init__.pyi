from .calibration import Judged as Judged
from .calibration import calibrate as calibrate
from .calibration import judge as judge
from .files import OUTLINES as OUTLINES
from .files import ObjectFiles as ObjectFiles
from .files import ObjectOptions as ObjectOptions
