"""Weights that stand in files of their own: where those files may be, and how a loaded model finds them."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from gn_deploy.errors import InputError
from gn_deploy.graph.slots import slots
from gn_deploy.graph.validate import DAMAGED, tensor_nbytes
from gn_deploy.graph.wire import INSIDE

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir


def check_files(model: Path, tensors: "Iterable[onnx.TensorProto]") -> dict[str, Path]:
    """The real file behind each location that ``tensors`` of the file ``model`` name.

    Raises InputError unless every file is there, long enough, and allowed:

    1. A location is relative to the folder in which the path ``model`` stands; when ``model`` is a link, the folder
       of the file it leads to is the second choice.
    2. A location never leaves its folder, neither absolutely nor through "..".
    3. A data file that is itself a link must lead into the folder of ``model`` or into the folder of the real model
       file. The Hugging Face cache is the second case: snapshots/REV/model.onnx -> blobs/HASH beside blobs/HASH2.
    4. A data file has one hard link: another name may be another user's file (onnx and onnx_ir refuse it too).
    """
    files: dict[str, Path] = {}
    sizes: dict[str, int] = {}
    for tensor in tensors:
        fields = {entry.key: entry.value for entry in tensor.external_data}
        location = fields.get("location", "")
        if location not in files:
            files[location] = Path(os.path.realpath(model)) if location == INSIDE else _find(model, location)
            sizes[location] = files[location].stat().st_size
        nbytes = tensor_nbytes(tensor)
        offset, length = (_number(tensor, fields.get(key)) for key in ("offset", "length"))
        end = (offset or 0) + (nbytes if length is None else length)
        if length is not None and length != nbytes:
            told = "the file holds" if location == INSIDE else "its external data says"
            raise InputError(f"tensor '{tensor.name}' takes {nbytes} bytes, {told} {length}", DAMAGED)
        if end > sizes[location]:
            raise InputError(
                f"external data file '{location}' is too short: tensor '{tensor.name}' ends at byte {end}, "
                f"the file at {sizes[location]}",
                "the download or export was cut off: get the file again",
            )
    return files


def _number(tensor: "onnx.TensorProto", text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise InputError(f"external data of tensor '{tensor.name}' has the offset or length '{text}'", DAMAGED)
    return int(text)


def _find(model: Path, location: str) -> Path:
    """Rules 1 to 4 of ``check_files``."""
    inside = os.path.normpath(location)
    # a backslash is a separator on Windows, where the same file must not mean something else
    if not location or "\0" in location or os.path.isabs(location) or ".." in inside.replace("\\", "/").split("/"):
        raise InputError(
            f"external data location '{location}' is outside the model's folder",
            "put the data file beside the model and export again, or correct the location with onnx.save",
        )
    folders = (model.parent, Path(os.path.realpath(model)).parent)
    roots = [Path(os.path.realpath(folder)) for folder in folders]
    for folder in folders:
        path = folder / inside
        if not os.path.lexists(path):
            continue
        real = Path(os.path.realpath(path))
        if not any(real.is_relative_to(root) for root in roots):
            raise InputError(
                f"external data file '{path}' is a link to '{real}', outside the model's folder",
                "put the data file itself beside the model: cp --remove-destination TARGET LINK",
            )
        if not real.is_file():
            what = f"leads to '{real}', which is missing" if path.is_symlink() else "is not a file"
            raise InputError(f"external data file '{path}' {what}", "download it again, beside the model")
        if real.stat().st_nlink > 1:
            raise InputError(
                f"external data file '{path}' has a second hard link, which may be anybody's file",
                f"give the model its own copy: cp '{path}' copy && mv copy '{path}'",
            )
        return real
    raise InputError(
        f"external data file '{folders[0] / inside}' is missing", "it belongs beside the model: download both"
    )


def attach(model: "ir.Model", path: Path, files: dict[str, Path]) -> None:
    """Tells each external tensor of ``model``, loaded from ``path``, where its bytes are; nothing is read."""
    import onnx_ir as ir

    def located(tensor: "ir.TensorProtocol") -> "ir.TensorProtocol | None":
        if not isinstance(tensor, ir.ExternalTensor):
            return None
        real = files[os.fspath(tensor.location)]
        folder = Path(os.path.realpath(path.parent))
        # onnx_ir wants the real file below base_dir, so a link is followed here, once, under rule 3 of check_files
        base = folder if real.is_relative_to(folder) else real.parent
        there = ir.ExternalTensor(
            real.relative_to(base),
            tensor.offset,
            tensor.length,
            tensor.dtype,
            shape=tensor.shape,
            name=tensor.name,
            doc_string=tensor.doc_string,
            metadata_props=dict(tensor.metadata_props) or None,
            base_dir=base,
        )
        return _mapped(there, real) if os.fspath(tensor.location) == INSIDE else there

    if files:
        for slot in list(slots(model)):
            if (tensor := located(slot.get())) is not None:
                slot.set(tensor)


def _mapped(tensor: "ir.ExternalTensor", path: Path) -> "ir.TensorProtocol":
    """A tensor like any in memory, of which the memory is the file; smaller than a byte an element, a copy."""
    import numpy as np
    import onnx_ir as ir

    if tensor.dtype.bitwidth < 8:
        array = tensor.numpy()
    else:
        array = np.memmap(path, tensor.dtype.numpy(), "r", tensor.offset or 0, tensor.shape.numpy())
    props = dict(tensor.metadata_props) or None
    return ir.Tensor(array, tensor.dtype, name=tensor.name, doc_string=tensor.doc_string, metadata_props=props)
