from .files import evaluate_files as evaluate_files
from .models import evaluate as evaluate
from .shared import has_neurites as has_neurites
