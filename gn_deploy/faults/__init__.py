"""Ways in which a GroupNorm goes wrong, each with a name, as float64 NumPy: what a comparison must be able to see."""

from gn_deploy.faults.base import Fault, Kind
from gn_deploy.faults.table import FAULTS, applies

__all__ = ["FAULTS", "Fault", "Kind", "applies"]
