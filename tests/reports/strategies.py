"""Any report at all, from the dataclasses' own annotations."""

import types
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, Union, get_args, get_origin, get_type_hints

from hypothesis import Phase, settings
from hypothesis import strategies as st

from gn_deploy.parity.report import HISTOGRAM_EDGES, ParityReport, SiteVerdict, WorstGroup

TEXT = st.text(st.characters(), max_size=8) | st.sampled_from(["gn", "torch", "onnxruntime", "a.onnx", "<b>", "\u202e"])
FLOATS = st.floats(width=64) | st.sampled_from([0.0, 0.5, 1.0, 830.0])


def instances(kind: type) -> st.SearchStrategy[Any]:
    hints = get_type_hints(kind)
    if kind is WorstGroup:  # its columns are equally long
        return st.integers(0, 6).flatmap(lambda n: st.builds(
            WorstGroup, st.integers(0, 9), st.integers(0, 9), _row(st.integers(0, 99), n), *(_row(FLOATS, n),) * 4
        ))  # fmt: skip
    parts = {f.name: _value(hints[f.name]) for f in fields(kind) if f.name != "seconds"}
    if kind is SiteVerdict:
        parts["histogram"] = st.just(()) | _row(st.integers(0, 10**6), len(HISTOGRAM_EDGES) + 1)
    return st.builds(kind, **parts)


def _row(values: st.SearchStrategy[Any], size: int) -> st.SearchStrategy[Any]:
    return st.lists(values, min_size=size, max_size=size).map(tuple)


def _value(hint: Any) -> st.SearchStrategy[Any]:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return st.none() | _value(inner[0])
    if origin is tuple:
        return st.lists(st.deferred(lambda: _value(inner[0])), max_size=3).map(tuple)
    if origin is dict:
        return st.dictionaries(TEXT, _value(inner[1]), max_size=3)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return st.sampled_from(hint)
    if is_dataclass(hint):
        return instances(hint)  # type: ignore[arg-type]
    return {str: TEXT, int: st.integers(-1, 10**9), float: FLOATS, bool: st.booleans()}[hint]


REPORTS = instances(ParityReport)
QUICK = settings(max_examples=25, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
"""Without shrinking: it takes minutes for data of this size."""
