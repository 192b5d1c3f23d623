"""Runs any registered runtime in a process of its own, so that a crash or a hang there is a result here."""

import contextlib
import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any

from gn_deploy.errors import GnDeployError, InputError, UnavailableError
from gn_deploy.runtimes.base import Array, BuildResult, RuntimeFailure, one_line

if TYPE_CHECKING:
    import onnx_ir as ir

TIME_LIMIT = 600.0
"""Seconds one request may take: ten minutes, more than any model of this project's tests and less than a CI job."""


class Worker:
    """A child process that answers requests one at a time: pickled over pipes, arrays as raw buffers beside.

    1. An error raised over there is raised here as the same kind of GnDeployError.
    2. A crash and a time-out become RuntimeFailure, which names the signal and quotes the last line of stderr; the
       worker is then gone for good. After any other failure it goes on, running out of memory included.
    3. The worker ends when its parent does, because its standard input is then closed.
    """

    def __init__(self, name: str, *, time_limit: float = TIME_LIMIT, memory_limit: int | None = None) -> None:
        """``time_limit`` in seconds per request; ``memory_limit`` in bytes of address space (POSIX only)."""
        self.name = name
        self._time_limit = time_limit
        self._stderr = TemporaryFile()  # noqa: SIM115 -- closed with the process
        home = str(Path(__file__).parents[2])
        path = os.pathsep.join(p for p in (home, os.environ.get("PYTHONPATH")) if p)
        self._process: subprocess.Popen[bytes] = subprocess.Popen(
            [sys.executable, "-P", "-m", "gn_deploy.runtimes.child", str(memory_limit or 0)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**os.environ, "PYTHONPATH": path},
        )
        self._end = weakref.finalize(self, _end, self._process)

    def ask(self, doing: str, method: str, *arguments: Any, **options: Any) -> Any:
        """Calls ``method`` of the runtime (or of the session it opened) over there; ``doing`` is for messages."""
        if not self._end.alive:
            raise RuntimeFailure(f"the {self.name} process has ended")
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        late = threading.Event()

        def stop() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(self._time_limit, stop)
        timer.start()
        try:
            _send(self._process.stdin, (self.name, method, arguments, options))
            ok, answer = _receive(self._process.stdout)
        except (OSError, EOFError):
            raise self._post_mortem(doing, late.is_set()) from None
        except BaseException:  # Ctrl-C: the answer that is still to come would be taken for the next one's
            self.close()
            raise
        finally:
            timer.cancel()
        if ok:
            return answer
        kind, message, hint = answer
        raise kind(message, hint)

    def close(self) -> None:
        self._end()

    def _post_mortem(self, doing: str, late: bool) -> RuntimeFailure:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)  # writing a core file takes its time
        self._end()
        code = self._process.returncode
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        said = f"its last words: {one_line(lines[-1])}" if lines else ""
        if late:
            return RuntimeFailure(f"{self.name} took more than {self._time_limit:g} s while {doing}", said)
        try:
            cause = signal.Signals(-code).name
        except ValueError:
            cause = f"exit code {code}"
        return RuntimeFailure(f"{self.name} crashed ({cause}) while {doing}", said)


class ChildSession:
    """A Session whose model lives in a Worker. ``run`` may raise RuntimeFailure for a crash; it never crashes us."""

    def __init__(
        self,
        runtime: str,
        model: "ir.Model | Path",
        *,
        precision: str | None = None,
        time_limit: float = TIME_LIMIT,
        memory_limit: int | None = None,
        **options: Any,
    ) -> None:
        """``options`` go to the runtime's ``open``."""
        from gn_deploy.runtimes.handover import as_file

        self.runtime = runtime
        self._worker = Worker(runtime, time_limit=time_limit, memory_limit=memory_limit)
        try:
            with as_file(model) as path:
                self.precision: str = self._worker.ask(
                    "opening the model", "open", Path(path).absolute(), precision=precision, **options
                )
        except BaseException:
            self._worker.close()
            raise

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        answer: dict[str, Array] = self._worker.ask("running the model", "run", dict(feeds))
        return answer

    def close(self) -> None:
        self._worker.close()


def build_in_child(name: str, model: Path, out: Path, time_limit: float, options: Mapping[str, Any]) -> BuildResult:
    """``build_here`` of a runtime in a process of its own, which its compiler may abort."""
    worker = Worker(name, time_limit=time_limit)
    try:
        result: BuildResult = worker.ask("building the engine", "build", Path(model), Path(out), **options)
    finally:
        worker.close()
    return result


def _end(process: "subprocess.Popen[bytes]") -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # what was still in the pipe of a dead process
                pipe.close()
    try:
        process.wait(timeout=0.2)  # a healthy worker ends at once when its input does
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _send(stream: IO[bytes], message: Any) -> None:
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    raws = [buffer.raw() for buffer in buffers]
    stream.write(struct.pack("<QQ", len(raws), len(head)) + b"".join(struct.pack("<Q", raw.nbytes) for raw in raws))
    stream.write(head)
    for raw in raws:
        stream.write(raw)
    stream.flush()


def _receive(stream: IO[bytes]) -> Any:
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


def _serve(memory_limit: int) -> None:
    """Answers requests until standard input is closed."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what C++ libraries print to stdout must not get between the answers
    from gn_deploy.runtimes import RUNTIMES

    session: Any = None
    while True:
        try:
            name, method, arguments, options = _receive(sys.stdin.buffer)
        except EOFError:
            return
        try:
            if method == "run":
                answer: Any = session.run(*arguments)
            else:
                runtime: Any = RUNTIMES.require(name)
                if memory_limit:  # now: a runtime that cannot even be imported would look as if it were absent
                    import resource

                    resource.setrlimit(resource.RLIMIT_AS, (memory_limit, memory_limit))
                answer = getattr(runtime, f"{method}_here", getattr(runtime, method))(*arguments, **options)
            if method == "open":
                session, answer = answer, answer.precision
            reply: tuple[bool, Any] = (True, answer)
        except (InputError, UnavailableError, RuntimeFailure) as error:
            reply = (False, (type(error), error.message, error.hint))
        except GnDeployError as error:
            reply = (False, (RuntimeFailure, error.message, error.hint))
        except KeyError as error:
            reply = (False, (InputError, f"{name} was given no array for input {error}", ""))
        except MemoryError:
            reply = (False, (RuntimeFailure, f"{name} ran out of memory", ""))
        except Exception as error:
            reply = (False, (RuntimeFailure, f"{name}: {one_line(error)}", ""))
        _send(answers, reply)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
