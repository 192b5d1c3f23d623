"""Where a node came from, as the exporter wrote it down, and where it comes from once we have written it."""

import ast
import re
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

_TORCH = "pkg.torch.onnx."
_FRAME = re.compile(r'File "([^"\n]+)", line (\d+)')
_INSIDE_TORCH = re.compile(r"[\\/]torch[\\/](nn|utils|fx|autograd|functional\.py|_\w+)")
_CALL_NUMBER = re.compile(r"@\d+$")  # torch.export names the second call of a module "norm@1"


def module_path(node: "ir.Node") -> str:
    """Path of the innermost module that ``node`` belongs to, such as ``down.1.norm2``; "" when the file does not say.

    Sources: torch.onnx.export(dynamo=True) writes ``pkg.torch.onnx.name_scopes``, outermost first, the operator last;
    its TorchScript predecessor names nodes ``/down.1/norm2/InstanceNormalization``.
    """
    scopes = _strings(node.metadata_props.get(_TORCH + "name_scopes", ""))
    if scopes:
        return _CALL_NUMBER.sub("", scopes[-2]) if len(scopes) > 1 else ""
    if not (node.name or "").startswith("/"):
        return ""
    path: list[str] = []
    for scope in (node.name or "").split("/")[1:-1]:
        # the child 0 of "layer1" is the scope "layer1.0": it repeats its parent's name
        if path and scope.startswith(f"{path[-1]}."):
            path.pop()
        path.append(scope)
    return ".".join(path)


def source_line(node: "ir.Node") -> str:
    """File and line of the innermost frame outside torch, such as ``unet.py:88``; "" when the file does not say."""
    frames: list[tuple[str, str]] = _FRAME.findall(node.metadata_props.get(_TORCH + "stack_trace", ""))
    users = [frame for frame in frames if not _INSIDE_TORCH.search(frame[0])]
    if not users:
        return ""
    file, line = users[-1]
    return f"{PureWindowsPath(file).name}:{line}"  # it splits at both slashes


def stamp_model(model: "ir.Model", target: str) -> None:
    """Notes in ``model`` which gn_deploy wrote it and for which target."""
    try:
        release = version("gn-deploy")
    except PackageNotFoundError:  # run from a checkout that was never installed
        release = "unknown"
    model.metadata_props["gn_deploy.version"] = release
    model.metadata_props["gn_deploy.target"] = target


def stamp_node(node: "ir.Node", form: str, was: str, replaced: "Iterable[ir.Node]") -> None:
    """Notes in a new ``node`` which ``form`` wrote it, and what stood there: the form ``was`` and its operators.

    What an exporter said of the last of ``replaced`` that it said anything of (module, source line) is inherited, so
    that ``module_path`` and ``source_line`` answer for the new node as for the old ones.
    """
    replaced = list(replaced)
    for old in reversed(replaced):
        inherited = {k: v for k, v in old.metadata_props.items() if not k.startswith("gn_deploy.")}
        if inherited:
            node.metadata_props.update(inherited)
            break
    node.metadata_props["gn_deploy.form"] = form
    node.metadata_props["gn_deploy.was"] = f"{was}: {', '.join(old.op_type for old in replaced)}"


def _strings(text: str) -> list[str]:
    """A list of strings as Python prints it; empty for anything else."""
    try:
        found = ast.literal_eval(text) if text else []
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []
    return [str(item) for item in found] if isinstance(found, list) else []
