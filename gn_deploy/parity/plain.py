"""Frozen dataclasses to plain data for strict JSON, and back by their annotations."""

import math
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """Enums as their words, NaN as None, infinity as "inf" or "-inf", tuples as lists, dataclasses as dicts."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None if math.isnan(value) else str(float(value))
    return value


def from_plain(kind: type[T], data: Mapping[str, Any]) -> T:
    """The inverse up to NaN for every None that stands for a float; unknown keys are ignored, missing ones take their
    default. Raises KeyError, TypeError or ValueError for data that does not fit."""
    hints: dict[str, Any] = _hints(kind)  # type: ignore[arg-type]
    return kind(**{f.name: _value(hints[f.name], data[f.name]) for f in fields(kind) if f.name in data})  # type: ignore[arg-type]


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _value(hint: Any, value: Any) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        known = [h for h in inner if h is not type(None)]
        return None if value is None else _value(known[0], value)
    if hint is float:
        return math.nan if value is None else float(value)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise TypeError(f"a list expected, not {value!r:.40}")
        return tuple(_value(inner[0], v) for v in value)
    if origin is dict:
        return {k: _value(inner[1], v) for k, v in value.items()}
    if isinstance(hint, type) and is_dataclass(hint):
        return from_plain(hint, value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(value)
    if hint in (str, int, bool) and type(value) is not hint:
        raise TypeError(f"{hint.__name__} expected, not {value!r:.40}")
    return value
