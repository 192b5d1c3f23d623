"""What a source gives for one case, before anybody has looked whether it fits the model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """Arrays by the names of the model's inputs, or in their order.

    An array is whatever has a shape, a dtype and slices: NumPy's own, one mapped from a file, one still in an archive.
    """

    name: str
    arrays: Mapping[str, Any] | Sequence[Any]
    where: str
    """For messages: "images.npz", "loader.py:load_data()"."""
