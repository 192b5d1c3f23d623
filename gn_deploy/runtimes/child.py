"""What runs in a worker process: opens models, runs them and builds engines, as its parent asks.

Started by ``worker.Worker`` as ``python -m gn_deploy.runtimes.child REQUESTS ANSWERS LIFELINE MEMORY``: three file
descriptors and a number of bytes, 0 for no limit.
"""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any

from gn_deploy.errors import GnDeployError, InputError, UnavailableError
from gn_deploy.runtimes.base import NoKernelError, RuntimeFailure, TimeLimitExceeded, in_bytes, one_line
from gn_deploy.runtimes.pipes import receive, send

KINDS: dict[str, type[GnDeployError]] = {
    kind.__name__: kind for kind in (InputError, NoKernelError, UnavailableError, TimeLimitExceeded, RuntimeFailure)
}
"""Errors that cross by name; any other is a RuntimeFailure over there."""


def serve(requests: int, answers: int, lifeline: int, memory_limit: int) -> None:
    """Answers requests until there are no more, which is when the parent closes its end or dies.

    A request is (method, runtime, arguments, options), an answer (True, value) or (False, kind, message, hint).
    "open" keeps a session, "build" and "close" say what they do, "call" calls a function, any other method is one of
    the session.
    """
    _die_with_the_parent(lifeline)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what it means
    os.dup2(2, 1)  # nobody reads what libraries print, but it may be the last words before a crash
    session: Any = None
    with os.fdopen(requests, "rb") as questions, os.fdopen(answers, "wb") as replies:
        while True:
            try:
                method, name, arguments, options = receive(questions)
            except EOFError:
                return
            try:
                answer: Any = None
                if method in ("open", "build", "close"):
                    _close(session)
                    session = None
                if method == "call":
                    function, *rest = arguments
                    answer = function(*rest, **options)
                elif method in ("open", "build"):
                    answer = _door(name, method, memory_limit)(*arguments, **options)
                elif method != "close":
                    answer = getattr(session, method)(*arguments, **options)
                if method == "open":
                    session, answer = answer, answer.precision
                reply: tuple[Any, ...] = (True, answer)
            except Exception as error:
                reply = (False, *_told(error, name, memory_limit))
            try:
                send(replies, reply)
            except BrokenPipeError:
                return
            except Exception as error:  # pickle raises what it likes; nothing has been written yet
                send(replies, (False, "RuntimeFailure", f"{name} answered what cannot be sent: {one_line(error)}", ""))
            del answer, reply, arguments  # the arrays are large, and the next request may be long in coming


def _door(name: str, method: str, memory_limit: int) -> Callable[..., Any]:
    """``open`` or ``build`` of the runtime as it works within a process, the memory limit in force."""
    from gn_deploy.runtimes import RUNTIMES

    runtime: Any = RUNTIMES.require(name)
    if memory_limit:
        _limit_memory(runtime, name, memory_limit)
    door = getattr(runtime, f"{method}_here", None) or getattr(runtime, method)
    if method == "build":
        return door  # type: ignore[no-any-return]
    return lambda model, **options: door(model() if callable(model) else model, **options)


def _close(session: Any) -> None:
    if session is not None:
        with suppress(Exception):
            session.close()


def _limit_memory(runtime: Any, name: str, limit: int) -> None:
    """From here on; what loading the packages takes is told apart, for it would look as if they were absent."""
    import resource

    for package in getattr(runtime, "packages", ()):
        with suppress(ImportError):  # ``open`` says what is missing
            import_module(package)
    taken = _data()
    if taken >= limit:
        raise InputError(
            f"loading {name} takes {in_bytes(taken)}, the memory limit is {in_bytes(limit)}",
            f"give it more: --memory-limit {in_bytes(2 ** (taken * 2).bit_length())}",
        )
    # Data: written private pages, reserved or not. Address space would count what CUDA reserves and never touches.
    kind = resource.RLIMIT_DATA if sys.platform == "linux" else resource.RLIMIT_AS
    resource.setrlimit(kind, (limit, resource.getrlimit(kind)[1]))


def _data() -> int:
    """Bytes this process has of what RLIMIT_DATA counts; 0 where that is not told."""
    with suppress(OSError), open("/proc/self/status") as status:
        return next((1024 * int(line.split()[1]) for line in status if line.startswith("VmData:")), 0)
    return 0


def _told(error: Exception, name: str, memory_limit: int) -> tuple[str, str, str]:
    """(kind, message, hint) of what the parent raises."""
    more = f"its memory limit is {in_bytes(memory_limit)}: --memory-limit gives it more" if memory_limit else ""
    if isinstance(error, MemoryError):
        return "RuntimeFailure", f"{name} ran out of memory", more
    if isinstance(error, KeyError):
        return "InputError", f"{name} was given no array for input {error}", ""
    if not isinstance(error, GnDeployError):
        return "RuntimeFailure", f"{name}: {one_line(error)}", more if _of_memory(str(error)) else ""
    known = next((kind for kind, made in KINDS.items() if isinstance(error, made)), "RuntimeFailure")
    wanting = known == "RuntimeFailure" and _of_memory(error.message)
    return known, error.message, error.hint or (more if wanting else "")


def _of_memory(message: str) -> bool:
    """Whether an error may come from want of memory, in the words of ONNX Runtime, OpenVINO, torch and the loader."""
    words = ("alloc", "out of memory", "enough memory", "failed to map segment")
    return any(word in message.lower() for word in words)


def _die_with_the_parent(lifeline: int) -> None:
    """Nothing is ever written to ``lifeline``; when the parent is gone, however it went, the kernel sends SIGIO, which
    ends a process also while it is deep in a C library. Elsewhere the end of the requests has to do."""
    if sys.platform != "linux":
        return
    import fcntl
    import select

    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([lifeline], [], [], 0)[0]:  # it went while this process started
        os._exit(1)


if __name__ == "__main__":
    serve(*map(int, sys.argv[1:]))
