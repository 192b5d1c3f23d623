"""Models read from files, checked on the way in, and written so that a file is complete or not there."""

import difflib
import gc
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from gn_deploy.errors import InputError
from gn_deploy.graph import slots as tensors
from gn_deploy.graph.atomic import atomic, check_place
from gn_deploy.graph.external import attach, check_files
from gn_deploy.graph.sniff import looks_like
from gn_deploy.graph.validate import validate
from gn_deploy.graph.wire import INSIDE, LARGE, Piece, with_weights, without_weights

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

_PROTOBUF_LIMIT = 2**31 - 1  # bytes; protobuf writes lengths as int32
_MARGIN = 2**28  # bytes; nodes, names and stack traces of the largest known exports take a tenth of it
_SOURCE = "gn_deploy.source"
"""Key in ``model.graph.meta``, which copies of the graph inherit: the file the model was loaded from."""


def load(path: str | Path) -> "ir.Model":
    """The model in the ONNX file ``path``, checked, its nodes in topological order.

    1. Weights stay on disk and are mapped when read, also those in the file itself; where external data may stand says
       ``external.check_files``.
       Models above 2 GB work, and so do links into the Hugging Face cache.
    2. Raises InputError, naming what was found, for anything that is not a model that could run.
    3. Everything in the file is kept: metadata_props, doc_string, names, value types, functions.
    """
    path = Path(path)
    with paused_gc():
        model = _build(_parse(path), path)
    model.graph.meta[_SOURCE] = os.path.realpath(path)
    return model


def as_model(source: Any) -> "ir.Model":
    """The onnx_ir.Model behind a path, an onnx.ModelProto, an onnx_ir.Model (itself) or a torch ONNXProgram (its own).

    Raises InputError for a file or a proto that is not a model, TypeError for anything else.
    """
    if isinstance(source, str | os.PathLike):
        return load(Path(source))
    import onnx
    import onnx_ir as ir

    if isinstance(source, ir.Model):
        return source
    if isinstance(source, onnx.ModelProto):
        with paused_gc():
            return _build(source, None)
    if isinstance(program := getattr(source, "model", None), ir.Model):
        return program
    raise TypeError(
        f"expected a path, an onnx.ModelProto, an onnx_ir.Model or a torch ONNXProgram, got {type(source).__name__}"
        + ("; export an nn.Module first: gn_deploy.export(module, inputs)" if hasattr(source, "state_dict") else "")
    )


def save(model: "ir.Model", path: str | Path, *, external_data: bool | None = None) -> None:
    """Writes ``model`` to ``path`` and, if it needs one, its data file to ``path`` + ".data", whole or not at all.

    1. ``external_data``: True moves tensors above 1 KiB to the data file, False keeps all inside; None keeps what the
       model has, and moves when it would not fit into protobuf's 2 GB. Weights on disk are copied, never loaded.
    2. The same model gives the same bytes. ``ir_version`` rises only when an opset needs it. ``model`` is unchanged.
    3. Raises InputError when ``path`` or the data file is a file that ``model`` was loaded from, by whatever name,
       and when nothing can be written there; then nothing has changed on disk.
    """
    path = Path(path)
    check_place(path)
    inside = tensors.inline_bytes(model)
    if external_data is None:
        external_data = any(tensors.is_external(slot.get()) for slot in tensors.slots(model))
        external_data |= inside > _PROTOBUF_LIMIT - _MARGIN
    elif not external_data:
        inside += sum(s.get().nbytes for s in tensors.slots(model) if tensors.is_external(s.get()))
        if inside > _PROTOBUF_LIMIT - _MARGIN:
            raise InputError(
                f"cannot write '{path}' as one file: {inside / 1e9:.1f} GB of weights, protobuf holds 2 GB",
                "write it with external data",
            )
    data_path = path.with_name(path.name + ".data")
    paths = (data_path, path) if external_data else (path,)
    refuse_input(model, paths)
    parts, moved = tensors.plan(model, data_path.name) if external_data else ([], tensors.loaded)
    with atomic(*(paths if parts else paths[-1:])) as files:
        for part in parts:
            files[0].seek(part.offset)
            part.tensor.tofile(files[0])  # type: ignore[attr-defined]  # every tensor class of onnx_ir has it
        for piece in _serialized(model, moved):
            if isinstance(piece, bytes | memoryview):
                files[-1].write(piece)
            else:
                piece.tofile(files[-1])  # type: ignore[attr-defined]


@contextmanager
def paused_gc() -> Iterator[None]:
    """No cyclic garbage collection inside: a graph is all cycles, and collections while it is built find nothing.

    Measured on 20,000 nodes: onnx_ir builds them in 0.9 s instead of 1.3 to 4 s, by how full the heap was before.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _parse(path: Path) -> "onnx.ModelProto":
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        if path.is_dir():
            inside = sorted(path.glob("*.onnx"))
            raise InputError(f"'{path}' is a folder", f"did you mean '{inside[0]}'?" if inside else "pass a file")
        if path.is_block_device() or (path.is_char_device() and path != Path(os.devnull)):
            raise InputError(f"'{path}' is a device, not a file", "pass a file")  # some never end
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(512)
            if not head:
                raise InputError(f"'{path}' is empty", "the export or the download failed: make it again")
            if (found := looks_like(head)) is not None:
                raise InputError(f"'{path}' is not an ONNX file: it looks like {found[0]}", found[1])
            if size > _PROTOBUF_LIMIT:
                raise InputError(
                    f"'{path}' has {size / 1e9:.1f} GB, protobuf holds 2 GB", "export it with external data"
                )
            if size >= LARGE and path.is_file():
                raw = _light(file)
            else:
                file.seek(0)
                raw = file.read()
    except FileNotFoundError as error:
        raise _missing(path) from error
    except OSError as error:
        raise InputError(
            f"cannot read '{path}': {error.strerror or error}", "check the path and who may read it"
        ) from error
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(raw)
    except DecodeError as error:
        # field 1, ir_version, a varint, comes first in every known exporter's files
        what = "is cut off or damaged" if raw[0] == 0x08 else "is not an ONNX file"
        raise InputError(f"'{path}' {what}: it cannot be parsed", "export or download it again") from error
    return proto


def _light(file: BinaryIO) -> bytes:
    """The model without its large weights, which stay where they are; all of it where it is no message."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as data:
        try:
            return without_weights(data)
        except ValueError:
            return bytes(data)


def _missing(path: Path) -> InputError:
    if path.is_symlink():
        return InputError(
            f"'{path}' is a link to '{os.path.realpath(path)}', which does not exist", "download the file again"
        )
    try:
        names = [p.name for p in path.parent.iterdir()]
    except OSError:
        return InputError(f"'{path}' does not exist: there is no folder '{path.parent}'", "check the path")
    near = difflib.get_close_matches(path.name, names, n=1)
    hint = f"did you mean '{path.with_name(near[0])}'?" if near else "check the path"
    return InputError(f"'{path}' does not exist", hint)


def _build(proto: "onnx.ModelProto", path: Path | None) -> "ir.Model":
    """``path`` is where the proto came from; without one it cannot refer to external data."""
    try:
        return _checked(proto, path)
    except InputError as error:
        where = f"'{path}': " if path else ""
        raise InputError(_line(where + error.message), _line(error.hint)) from error
    except Exception as error:  # onnx_ir may raise anything for what the checks cannot foresee
        cause = str(error).strip().split("\n")[0] or type(error).__name__
        hint = "onnx.checker.check_model may say more"
        raise InputError(_line(f"'{path or 'ModelProto'}' cannot be read as a model: {cause}"), hint) from error


def _checked(proto: "onnx.ModelProto", path: Path | None) -> "ir.Model":
    import onnx_ir as ir

    found = validate(proto)
    if found.external and path is None:
        name = found.external[0].name
        raise InputError(f"tensor '{name}' of the ModelProto is in another file", "pass the path of the model")
    files = check_files(path, found.external) if path else {}
    model = ir.from_proto(proto)
    if path is not None:
        attach(model, path, files)
    for body in _bodies(model):
        if "ai.onnx" in body.opset_imports:  # the default domain's other name, which nobody else should have to know
            body.opset_imports[""] = body.opset_imports.pop("ai.onnx")
    if found.unsorted:
        sort(model)
    return model


def sort(model: "ir.Model") -> None:
    """Puts the nodes of every graph and function in topological order; raises InputError when there is a cycle."""
    for graph in _bodies(model):
        try:
            graph.sort()
        except ValueError as error:
            raise InputError(
                f"graph '{graph.name}' has a cycle: a node needs its own result", "export the model again"
            ) from error


def refuse_input(model: "ir.Model", paths: tuple[Path, ...]) -> None:
    """Raises InputError when one of ``paths`` is a file that ``model`` was loaded from, by whatever name."""
    source = model.graph.meta.get(_SOURCE)
    inputs = {source} if source is not None else set()
    inputs |= {os.fspath(t.path) for slot in tensors.slots(model) if hasattr(t := slot.get(), "path")}
    for path in paths:
        for name in sorted(inputs):
            if path.exists() and os.path.exists(name) and os.path.samefile(path, name):
                raise InputError(f"'{path}' is the input itself, which is never overwritten", "choose another output")


def _serialized(model: "ir.Model", replace: tensors.Replace) -> Iterator[Piece]:
    """The bytes of the file; weights are handed on as they are, so that they need not all be in memory."""
    import onnx
    import onnx_ir as ir

    imports = [
        onnx.helper.make_opsetid(domain, version)
        for body in _bodies(model)
        for domain, version in body.opset_imports.items()
    ]
    before = model.ir_version
    weights = tensors.only_in(model.graph, LARGE)
    numbers = {id(tensor): i for i, tensor in enumerate(weights)}

    def light(tensor: "ir.TensorProtocol") -> "ir.TensorProtocol | None":
        found = replace(tensor)
        number = None if found is not None and tensors.is_external(found) else numbers.get(id(tensor))
        return found if number is None else tensors.placeholder(tensor, INSIDE, number)

    with paused_gc(), tensors.swapped(model, light):
        try:
            model.ir_version = max(before, onnx.helper.find_min_ir_version_for(imports, ignore_unknown=True))
            written: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
        except ir.serde.SerdeError as error:
            if not _is_about_text(error):
                raise
            raise InputError(
                "the model cannot be written: a note in it is not UTF-8 text", "export it again"
            ) from error
        finally:
            model.ir_version = before
    return with_weights(memoryview(written), weights.__getitem__)


def _is_about_text(error: BaseException | None) -> bool:
    """Loading checks names only; comments and metadata_props are read here for the first time."""
    return error is not None and (isinstance(error, UnicodeDecodeError) or _is_about_text(error.__cause__))


def _bodies(model: "ir.Model") -> "list[ir.Graph]":
    return [model.graph, *(function.graph for function in model.functions.values())]


def _line(text: str) -> str:
    """Names in a hostile file may hold anything and be of any length; a message is one line."""
    line = "".join(c if c.isprintable() else "?" for c in text)
    return line if len(line) <= 400 else f"{line[:200]} ... {line[-190:]}"
