"""What TensorRT takes for the nodes of gn_deploy's own plugin: its library, the quick plugin, or their bodies."""

import mmap
from dataclasses import dataclass
from pathlib import Path

from gn_deploy.errors import InputError, UnavailableError
from gn_deploy.plugin.location import library
from gn_deploy.plugin.node import DOMAIN

WAYS = ("library", "quick", "none")
"""What may be asked for: the built library; kernels compiled for each layer and stored in the engine; the bodies."""
_ATTRIBUTE = b"plugin_namespace"  # by which alone TensorRT takes a node to a plugin before its function body


@dataclass(frozen=True, slots=True)
class Loading:
    """What is done before a model is parsed."""

    libraries: tuple[Path, ...] = ()
    quick: bool = False
    """The quick plugin is registered."""
    told: str = ""
    """The same in words; empty where the model has no node of the plugin."""


def checked_way(plugin: str | None) -> str | None:
    """``plugin`` itself. Raises InputError for what is none of WAYS."""
    if plugin is not None and plugin not in WAYS:
        raise InputError(f"--plugin {plugin} is not known", f"one of {', '.join(WAYS)}")
    return plugin


def asks_for_plugin(model: Path) -> bool:
    """Whether the ONNX file has nodes of the plugin; where it only speaks of them, a library is loaded in vain."""
    with model.open("rb") as file:
        if model.stat().st_size == 0:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return data.find(_ATTRIBUTE) >= 0 and data.find(DOMAIN.encode()) >= 0


def for_model(model: Path, plugin: str | None = None) -> Loading:
    """As asked for; by default the library where there is one, else bodies.

    Raises InputError where a plugin is asked for and the model has no node of it, UnavailableError where the library
    is asked for and there is none.
    """
    if not asks_for_plugin(model):
        if plugin in ("library", "quick"):
            raise InputError(
                f"--plugin {plugin}: '{model}' has no node of the plugin",
                f"first: gn-deploy lower {model} --target tensorrt+plugin -o OUT.onnx",
            )
        return Loading()
    if plugin == "quick":
        return Loading(quick=True, told="quick plugin: its kernels are in the engine, which needs no library")
    if plugin == "none":
        return Loading(told="without the plugin: the bodies of its nodes are compiled")
    found = library()
    if isinstance(found, Path):
        return Loading((found,), told=f"plugin {found.name}: the engine needs it wherever it runs")
    if plugin == "library":
        raise UnavailableError(f"no plugin library: {found.reason}", "--plugin quick needs none, if NVRTC is here")
    return Loading(told=f"without the plugin ({found.reason}): the bodies of its nodes are compiled")


def for_plan(plan: bytes) -> tuple[Path, ...]:
    """Libraries to load before the engine is."""
    found = library() if DOMAIN.encode() in plan else None
    return (found,) if isinstance(found, Path) else ()
