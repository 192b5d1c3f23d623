"""Messages between two processes: pickled, arrays beside them as raw buffers."""

import pickle
import struct
from typing import IO, Any


def send(stream: IO[bytes], message: Any) -> None:
    """Nothing is written when ``message`` cannot be pickled."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    raws = [buffer.raw() for buffer in buffers]
    stream.write(struct.pack("<QQ", len(raws), len(head)) + b"".join(struct.pack("<Q", raw.nbytes) for raw in raws))
    stream.write(head)
    for raw in raws:
        stream.write(raw)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """The next message; EOFError when the other side has gone."""
    count, size = struct.unpack("<QQ", _exactly(stream, 16))
    sizes = struct.unpack(f"<{count}Q", _exactly(stream, 8 * count))
    head = _exactly(stream, size)
    return pickle.loads(head, buffers=[_exactly(stream, n) for n in sizes])


def _exactly(stream: IO[bytes], size: int) -> bytearray:
    data = bytearray(size)
    view, done = memoryview(data), 0
    while done < size:
        got = stream.readinto(view[done:])  # type: ignore[attr-defined]
        if not got:
            raise EOFError
        done += got
    return data
