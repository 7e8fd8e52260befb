from .description import describe as describe
from .description import net_of as net_of
from .description import svg as svg
