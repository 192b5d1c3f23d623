"""A process beside this one that runs a runtime, so that a crash or a hang there is a result here."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from gn_deploy.errors import InputError
from gn_deploy.runtimes.base import RuntimeFailure, TimeLimitExceeded, in_bytes, one_line
from gn_deploy.runtimes.child import KINDS
from gn_deploy.runtimes.pipes import receive, send

TIME_LIMIT = 600.0
"""Seconds one request may take: ten minutes, more than any model of this project's tests and less than a CI job."""
IDLE = 4  # processes kept for the next model: two runtimes, each for a network and a probe; about 100 MB each


class Worker:
    """A child process that answers requests one at a time.

    1. An error raised over there is raised here as the same kind of GnDeployError.
    2. A crash is a RuntimeFailure, a time-out a TimeLimitExceeded; they name the signal and quote the last line of
       stderr, and the worker is then gone for good. After any other failure it goes on.
    3. The worker ends when its parent does, whatever either of them is doing then (on Linux; elsewhere when it is
       done with its request). What it prints is kept for rule 2 alone, and it has no standard input.
    """

    def __init__(self, name: str, *, memory_limit: int | None = None) -> None:
        """``memory_limit`` in bytes of written memory (POSIX; on Linux what ``RLIMIT_DATA`` counts)."""
        self.name = name
        self.memory_limit = memory_limit
        self.tainted = False
        """Whether it ran out of memory once: what it says of the next model may come of that."""
        self._stderr = TemporaryFile()  # noqa: SIM115 -- closed with the process
        home = str(Path(__file__).parents[2])
        path = os.pathsep.join(p for p in (home, os.environ.get("PYTHONPATH")) if p)
        pipes = [os.pipe() for _ in range(3)]
        (questions, self_asks), (self_hears, replies), (lifeline, life) = pipes
        numbers = (questions, replies, lifeline)
        try:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                [sys.executable, "-P", "-m", "gn_deploy.runtimes.child", *map(str, numbers), str(memory_limit or 0)],
                stdin=subprocess.DEVNULL,
                stdout=self._stderr,
                stderr=self._stderr,
                pass_fds=numbers,
                env={**os.environ, "PYTHONPATH": path},
            )
        except OSError as error:
            for number in (self_asks, self_hears, life):
                os.close(number)
            raise RuntimeFailure(f"no process for {name} could be started: {error.strerror}") from error
        finally:
            for number in numbers:
                os.close(number)
        self._asks, self._hears = os.fdopen(self_asks, "wb"), os.fdopen(self_hears, "rb")
        self._owner = os.getpid()
        self._end = weakref.finalize(self, _end, self._process, (self._asks, self._hears), life, self._owner)

    @property
    def alive(self) -> bool:
        return self._end.alive and self._owner == os.getpid() and self._process.poll() is None

    def ask(self, doing: str, method: str, *arguments: Any, time_limit: float = TIME_LIMIT, **options: Any) -> Any:
        """Calls ``method`` of the runtime or of the session it opened over there, which may take ``time_limit``
        seconds; ``doing`` is for messages."""
        if not self._end.alive:
            raise RuntimeFailure(f"the {self.name} process has ended")
        if self._owner != os.getpid():
            raise RuntimeFailure(f"the {self.name} process answers the one that started it, not a fork of it")
        late = threading.Event()
        said = os.fstat(self._stderr.fileno()).st_size

        def stop() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(time_limit, stop)
        timer.daemon = True
        timer.start()
        try:
            send(self._asks, (method, self.name, arguments, options))
            ok, *answer = receive(self._hears)
        except (OSError, EOFError):
            raise self._post_mortem(doing, late.is_set(), time_limit, said) from None
        except BaseException:  # Ctrl-C, say: the answer that is still to come would be taken for the next one's
            self.close()
            raise
        finally:
            timer.cancel()
        if ok:
            return answer[0]
        kind, message, hint = answer
        self.tainted |= "memory" in f"{message} {hint}"
        raise KINDS[kind](message, hint)

    def kill(self) -> None:
        """Ends it at once, also while another thread is asking: that one is told of a crash, and cleans up."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def close(self) -> None:
        self._end()

    def _post_mortem(self, doing: str, late: bool, time_limit: float, said: int) -> RuntimeFailure:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)  # writing a core file takes its time
        self._end()
        code = self._process.returncode
        heard = os.pread(self._stderr.fileno(), 1 << 16, max(said, os.fstat(self._stderr.fileno()).st_size - (1 << 16)))
        lines = heard.decode(errors="replace").strip().splitlines()
        hint = f"its last words: {one_line(lines[-1])}" if lines else ""
        if late:
            return TimeLimitExceeded(f"{self.name} took more than {time_limit:g} s while {doing}", hint)
        if code == -signal.SIGKILL:
            cause = "was killed (SIGKILL), as the kernel does when memory runs out,"
        else:
            try:
                cause = f"crashed ({signal.Signals(-code).name})"
            except ValueError:
                cause = f"crashed (exit code {code})"
        if self.memory_limit and not lines:
            hint = f"its memory limit was {in_bytes(self.memory_limit)}"
        return RuntimeFailure(f"{self.name} {cause} while {doing}", hint)


class Workers:
    """Idle workers of this process, kept because starting one takes about a second; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[tuple[object, Worker]] = []

    def borrow(self, name: str, memory_limit: int | None) -> Worker:
        """One that is idle, or a new one. Only one of the same limit and started in the same environment will do."""
        if memory_limit is not None and memory_limit < 1:
            raise InputError(f"a memory limit of {memory_limit} bytes", "for example --memory-limit 8GiB")
        key = _key(name, memory_limit)
        while True:
            with self._lock:
                place = next((i for i, (known, _) in enumerate(self._idle) if known == key), None)
                worker = None if place is None else self._idle.pop(place)[1]
            if worker is None:
                return Worker(name, memory_limit=memory_limit)
            if worker.alive:
                return worker
            worker.close()

    def give_back(self, worker: Worker) -> None:
        """The one that has been idle longest ends when there are too many."""
        if not worker.alive or worker.tainted:
            worker.close()
            return
        with self._lock:
            self._idle.append((_key(worker.name, worker.memory_limit), worker))
            ended = [self._idle.pop(0)[1] for _ in range(len(self._idle) - IDLE)]
        for old in ended:
            old.close()

    def close(self) -> None:
        with self._lock:
            ended, self._idle = self._idle, []
        for _, worker in ended:
            worker.close()

    def forget(self) -> None:
        """After a fork: they are the other process's."""
        self._lock = threading.Lock()
        self._idle = []


WORKERS = Workers()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=WORKERS.forget)


def _key(name: str, memory_limit: int | None) -> object:
    return name, memory_limit, frozenset(os.environ.items())


def _end(process: "subprocess.Popen[bytes]", pipes: tuple[IO[bytes], ...], life: int, owner: int) -> None:
    for pipe in pipes:
        with contextlib.suppress(OSError):  # what was still in the pipe of a dead process
            pipe.close()
    if os.getpid() == owner:  # a fork has the worker's pipes but may not wait for it, let alone kill it
        try:
            process.wait(timeout=0.2)  # a healthy worker ends at once when its requests do
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    os.close(life)
