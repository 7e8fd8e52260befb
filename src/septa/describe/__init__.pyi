from .description import build_meta_net as build_meta_net
from .description import describe_net as describe_net
from .description import draw_net as draw_net
