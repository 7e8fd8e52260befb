from .borders import border_weights as border_weights
from .borders import cut_seams as cut_seams
from .terms import binary_cross_entropy as binary_cross_entropy
from .terms import cross_entropy as cross_entropy
from .terms import soft_dice as soft_dice
