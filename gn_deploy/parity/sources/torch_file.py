"""Tensors that torch.save wrote, read without running what else a pickle may hold."""

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gn_deploy.errors import InputError
from gn_deploy.exporters.failure import need, one_line
from gn_deploy.parity.sources.given import Given

_HINT = "needed: tensors, or dicts, tuples and lists of them, written by torch.save"


def read_torch(path: Path) -> Iterator[Given]:
    """A tensor, a tuple or a dict of them is a case; a list of these is a case each. Tensors are mapped, not read.

    Raises UnavailableError without torch, InputError for what holds more than tensors: it is not unpickled.
    """
    need("torch")
    import torch

    try:
        try:
            held = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # the format before torch 1.6 cannot be mapped
            held = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(f"{path} holds more than tensors, and reading that would run its code", _HINT) from None
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise InputError(f"cannot read {path}: {one_line(error)}", _HINT) from None
    listed = isinstance(held, list) and not all(isinstance(one, torch.Tensor) for one in held)
    for i, one in enumerate(held if listed else [held]):
        yield Given(f"{path.stem} {i}" if listed else path.stem, _arrays(one, path), path.name)


def _arrays(held: Any, path: Path) -> Any:
    import torch

    if isinstance(held, torch.Tensor):
        return [held]
    if isinstance(held, Mapping | list | tuple):
        return held
    raise InputError(f"{path} holds a {type(held).__name__}, not tensors", _HINT)
