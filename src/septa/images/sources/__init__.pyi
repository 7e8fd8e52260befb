from .open import Selection as Selection
from .open import Source as Source
from .open import open_source as open_source
