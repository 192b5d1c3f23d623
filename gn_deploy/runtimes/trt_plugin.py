"""The library of gn_deploy's own plugin, for a model or an engine that has its nodes."""

import mmap
from pathlib import Path

from gn_deploy.decision import Rejected
from gn_deploy.plugin.location import library
from gn_deploy.plugin.node import DOMAIN

_ATTRIBUTE = b"plugin_namespace"  # by which alone TensorRT takes a node to a plugin before its function body


def asks_for_plugin(model: Path) -> bool:
    """Whether the ONNX file has nodes of the plugin; where it only speaks of them, a library is loaded in vain."""
    with model.open("rb") as file:
        if model.stat().st_size == 0:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return data.find(_ATTRIBUTE) >= 0 and data.find(DOMAIN.encode()) >= 0


def for_model(model: Path) -> tuple[tuple[Path, ...], str]:
    """Libraries to load before the model is read, and what to tell: without one TensorRT compiles function bodies."""
    if not asks_for_plugin(model):
        return (), ""
    found = library()
    if isinstance(found, Rejected):
        return (), f"without the plugin ({found.reason}): the bodies of its nodes are compiled"
    return (found,), f"plugin {found.name}"


def for_plan(plan: bytes) -> tuple[Path, ...]:
    """Libraries to load before the engine is."""
    found = library() if DOMAIN.encode() in plan else None
    return (found,) if isinstance(found, Path) else ()
