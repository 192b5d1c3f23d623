"""What a file that is not an ONNX model looks like, told from its first bytes."""

_PASS = "pass an ONNX file"
_MAGIC = (
    (b"\x89PNG", "a PNG image", _PASS),
    (b"\xff\xd8\xff", "a JPEG image", _PASS),
    (b"\x89HDF\r\n", "an HDF5 file, such as a Keras model", "convert it with tf2onnx first"),
    (b"\x93NUMPY", "a NumPy array", _PASS),
    (b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (b"\x7fELF", "a program or a library", _PASS),
    (b"%PDF", "a PDF document", _PASS),
    (b"ftrt", "a TensorRT engine", "engines cannot be read back: pass the ONNX file the engine was built from"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "run 'git lfs pull' in its repository"),
    (b"<?xml", "an XML file, such as an OpenVINO model", "pass the ONNX file it was converted from"),
    (b"<!DOCTYPE", "a web page", "the download probably failed: fetch the file itself"),
    (b"<html", "a web page", "the download probably failed: fetch the file itself"),
)
_AT_FOUR = {
    b"TFL3": ("a TensorFlow Lite model", "convert it with tf2onnx first"),
    b"ORTM": ("an ONNX Runtime .ort file", "pass the ONNX file it was converted from"),
}
_EXPORT = "export it first: gn-deploy export RECIPE.py -o model.onnx"


def looks_like(head: bytes) -> tuple[str, str] | None:
    """What ``head``, the first bytes of a file (512 are enough), belongs to, and a hint; None when it may be ONNX."""
    for magic, what, hint in _MAGIC:
        if head.startswith(magic):
            return what, hint
    if head[4:8] in _AT_FOUR:
        return _AT_FOUR[head[4:8]]
    if head.startswith(b"PK\x03\x04"):
        # torch.save writes NAME/data.pkl as the first member of an uncompressed zip
        pytorch = b"data.pkl" in head[:256]
        return ("a PyTorch file", _EXPORT) if pytorch else ("a zip archive", "unpack it first")
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a Python pickle, such as an old PyTorch file", _EXPORT
    if head[8:9] == b"{" and head[7:8] == b"\0":  # a 64-bit header length, then its JSON
        return "a safetensors file: weights without a graph", _EXPORT
    text = head.lstrip()
    if text[:1] in (b"{", b"[") and _printable(head):
        return "a JSON file", _PASS
    if _printable(head):
        return "a text file", _PASS
    return None


def _printable(head: bytes) -> bool:
    return bool(head) and all(byte >= 32 or byte in b"\t\n\r\f" for byte in head)
