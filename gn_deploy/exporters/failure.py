"""Foreign exceptions as one line of what went wrong and where, and missing packages as what to install."""

import traceback
from importlib.util import find_spec
from pathlib import Path

from gn_deploy.errors import UnavailableError

_PACKAGE = Path(__file__).parents[1]
_PYTHON = Path(traceback.__file__).parent
_MODELS_EXTRA = ("diffusers", "sklearn")
_REAL_MODELS_EXTRA = ("monai", "segmentation_models_pytorch", "timm", "torchvision", "transformers")
_TORCH_EXTRA = ("torch", "onnxscript", "safetensors")


def one_line(error: BaseException) -> str:
    """The innermost cause: ``ValueError: first line of what it says``, and the second after a colon."""
    error = _innermost(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def place(error: BaseException) -> str:
    """``file.py line 12``: the innermost frame in code that is not Python's, a package's or ours; empty if none."""
    error = _innermost(error)
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name} line {error.lineno}"
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
    return f"{Path(own[-1].filename).name} line {own[-1].lineno}" if own else ""


def need(*packages: str) -> None:
    """Raises UnavailableError, with the command that installs it, for the first package that is not installed."""
    for package in packages:
        if find_spec(package) is None:
            raise missing(package)


def missing(package: str) -> UnavailableError:
    if package == "torch":
        hint = (
            "pip install 'gn-deploy[torch]'; for a small build without CUDA, first "
            "pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"
        )
    elif package in _TORCH_EXTRA:
        hint = "pip install 'gn-deploy[torch]'"
    elif package in _MODELS_EXTRA:
        hint = "pip install 'gn-deploy[models]'"
    elif package in _REAL_MODELS_EXTRA:
        hint = "pip install 'gn-deploy[real-models]'"
    else:
        hint = f"pip install {package}"
    return UnavailableError(f"the package '{package}' is needed and not installed", hint)


def _innermost(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _is_users(filename: str) -> bool:
    path = Path(filename)
    if filename.startswith("<") or "site-packages" in path.parts:
        return False
    return not (path.is_relative_to(_PACKAGE) or path.is_relative_to(_PYTHON))
