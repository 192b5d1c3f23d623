"""The worker process: what goes wrong over there is told here, and we live on."""

import os
import signal
import textwrap
import time

import numpy as np
import pytest

from gn_deploy.errors import InputError, UnavailableError
from gn_deploy.runtimes.base import RuntimeFailure
from gn_deploy.runtimes.child import ChildSession, Worker
from tests.runtimes.small_models import formula, instance_norm, relative_error, sample

BAD_RUNTIME = """
    import os, signal, sys, time
    import numpy as np
    from gn_deploy.errors import InputError
    class Session:
        precision = "float32"
        def run(self, feeds):
            kind = next(iter(feeds))
            if kind == "noise":
                os.write(1, b"C++ talks on stdout")
                return {"bytes": feeds[kind][::-1]}
            if kind == "segfault":
                print("about to die", file=sys.stderr, flush=True)
                os.kill(os.getpid(), signal.SIGSEGV)
            if kind == "abort":
                os.abort()
            if kind == "hang":
                time.sleep(60)
            if kind == "exit":
                os._exit(3)
            if kind == "raise":
                raise ValueError("from\\nthe runtime")
            if kind == "memory":
                return {"size": np.zeros(2**32, np.uint8).size}
    class Bad:
        def open(self, model, *, precision=None, refuse=False):
            if refuse:
                raise InputError("refused", "ask otherwise")
            return Session()
    BAD = Bad()
"""


@pytest.fixture
def bad(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """A third party's runtime, "bad", installed for the worker only; a function that opens it."""
    (tmp_path / "bad_runtime.py").write_text(textwrap.dedent(BAD_RUNTIME))
    info = tmp_path / "bad_runtime-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bad-runtime\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[gn_deploy.runtimes]\nbad = bad_runtime:BAD\n")
    (tmp_path / "m.onnx").write_bytes(b"")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    sessions = []

    def open_bad(**options) -> ChildSession:
        sessions.append(ChildSession("bad", tmp_path / "m.onnx", **options))
        return sessions[-1]

    yield open_bad
    for session in sessions:
        session.close()


NOTHING = np.zeros(1)


@pytest.mark.parametrize(
    ("kind", "told"),
    [("segfault", "crashed .SIGSEGV. while running the model"), ("abort", "SIGABRT"), ("exit", "exit code 3")],
)
def test_a_dead_worker_is_a_result(bad, kind: str, told: str) -> None:
    session = bad()
    with pytest.raises(RuntimeFailure, match=told) as failure:
        session.run({kind: NOTHING})
    if kind == "segfault":
        assert "about to die" in failure.value.hint
    with pytest.raises(RuntimeFailure, match="has ended"):
        session.run({"noise": NOTHING})


def test_a_hanging_worker_is_stopped(bad) -> None:
    session = bad(time_limit=3)
    start = time.monotonic()
    with pytest.raises(RuntimeFailure, match="more than 3 s while running the model"):
        session.run({"hang": NOTHING})
    assert time.monotonic() - start < 30


def test_errors_cross_and_the_worker_lives_on(bad) -> None:
    session = bad()
    with pytest.raises(RuntimeFailure, match="from the runtime"):
        session.run({"raise": NOTHING})
    data = np.arange(3_000_000, dtype=np.float32)
    np.testing.assert_array_equal(session.run({"noise": data})["bytes"], data[::-1])
    with pytest.raises(InputError, match="refused") as refusal:
        bad(refuse=True)
    assert refusal.value.hint == "ask otherwise"


def test_an_interrupted_request_leaves_no_answer_for_the_next(bad, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(stream: object) -> None:
        raise KeyboardInterrupt

    session = bad()
    monkeypatch.setattr("gn_deploy.runtimes.child._receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        session.run({"noise": NOTHING})
    with pytest.raises(RuntimeFailure, match="has ended"):
        session.run({"noise": NOTHING})


def test_a_memory_limit_holds(bad) -> None:
    assert bad().run({"memory": NOTHING})["size"] == 2**32
    with pytest.raises(RuntimeFailure, match="out of memory"):
        bad(memory_limit=2**31).run({"memory": NOTHING})


def test_any_runtime_runs_in_a_child() -> None:
    model, scale, bias = instance_norm()
    x = sample((2, 8, 8, 8))
    for name in ("onnxruntime", "onnx-reference"):
        session = ChildSession(name, model)
        y = session.run({"x": x})["y"]
        session.close()
        assert session.precision == "float32"
        assert relative_error(y, formula(x, 2, scale, bias)) < 2e-6  # a few float32 roundings


def test_absent_runtimes_stay_unavailable() -> None:
    with pytest.raises(UnavailableError, match="CUDAExecutionProvider"):
        ChildSession("ort-cuda", instance_norm()[0])


def test_a_forgotten_worker_ends() -> None:
    worker = Worker("onnxruntime")
    pid = worker._process.pid
    os.kill(pid, 0)
    del worker
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert signal.getsignal(signal.SIGCHLD) in (signal.SIG_DFL, None)
