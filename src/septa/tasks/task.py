"""Any task."""

from __future__ import annotations

from septa.tasks.instances import Instances
from septa.tasks.semantic import Semantic

Task = Semantic | Instances
