"""The worker process: what goes wrong over there is told here, and we live on."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from gn_deploy.errors import InputError, UnavailableError
from gn_deploy.runtimes import RUNTIMES
from gn_deploy.runtimes.base import RuntimeFailure, TimeLimitExceeded, in_bytes
from gn_deploy.runtimes.isolated import ChildSession, Isolated, Limits, ListeningChild, isolated
from gn_deploy.runtimes.torch_eager import TorchModel
from gn_deploy.runtimes.worker import WORKERS, Worker
from tests.runtimes.small_models import formula, instance_norm, relative_error, sample

ROOT = Path(__file__).parents[2]
BAD_RUNTIME = """
    import os, signal, subprocess, sys, time
    import numpy as np
    from gn_deploy.errors import InputError
    from gn_deploy.runtimes.base import RuntimeFailure
    class Mine(RuntimeFailure):
        pass
    class Session:
        precision = "float32"
        def run(self, feeds):
            kind = next(iter(feeds))
            if kind == "noise":
                os.write(1, b"C++ talks on stdout")
                print("and so does Python")
                return {"bytes": feeds[kind][::-1]}
            if kind == "read stdin":
                return {"read": np.frombuffer(sys.stdin.buffer.read(4) + b".", np.uint8)}
            if kind == "segfault":
                print("about to die", file=sys.stderr, flush=True)
                os.kill(os.getpid(), signal.SIGSEGV)
            if kind == "abort":
                os.abort()
            if kind == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if kind == "hang":
                time.sleep(60)
            if kind == "spin":
                sum(range(10**12))  # one call of C that never lets go of the interpreter
            if kind == "exit":
                os._exit(3)
            if kind == "sys.exit":
                sys.exit(4)
            if kind == "raise":
                raise ValueError("from\\nthe runtime")
            if kind == "own error":
                raise Mine("a kind of error the parent has not got", "a hint")
            if kind == "unsendable":
                return {"file": open(os.devnull)}
            if kind == "pid":
                return {"pid": np.array(os.getpid())}
            if kind == "interrupt":
                os.kill(os.getpid(), signal.SIGINT)
                return {}
            if kind == "memory":
                return {"size": np.zeros(2**32, np.uint8).size}
        def close(self):
            pass
    class Bad:
        packages = ("tarfile",)
        def open(self, model, *, precision=None, refuse=False, hang=False):
            if refuse:
                raise InputError("refused", "ask otherwise")
            if hang:
                time.sleep(60)
            return Session()
    BAD = Bad()
"""


@pytest.fixture
def bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ChildSession]]:
    """A third party's runtime, "bad", installed for the worker only; a function that opens it."""
    (tmp_path / "bad_runtime.py").write_text(textwrap.dedent(BAD_RUNTIME))
    info = tmp_path / "bad_runtime-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bad-runtime\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[gn_deploy.runtimes]\nbad = bad_runtime:BAD\n")
    (tmp_path / "m.onnx").write_bytes(b"")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    sessions = []

    def open_bad(**options: Any) -> ChildSession:
        sessions.append(ChildSession("bad", tmp_path / "m.onnx", **options))
        return sessions[-1]

    yield open_bad
    for session in sessions:
        session.close()
    WORKERS.close()


def pid(session: ChildSession) -> int:
    return int(session.run({"pid": NOTHING})["pid"])


def gone(process: int) -> bool:
    """Within a few seconds; also not as a zombie."""
    for _ in range(100):
        if not psutil.pid_exists(process):
            return True
        time.sleep(0.05)
    return False


NOTHING = np.zeros(1)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("segfault", "crashed .SIGSEGV. while running the model"),
        ("abort", "SIGABRT"),
        ("exit", "exit code 3"),
        ("sys.exit", "exit code 4"),
        ("kill", "was killed .SIGKILL., as the kernel does when memory runs out, while running"),
    ],
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
    session = bad(time_limit=2)
    process, start = pid(session), time.monotonic()
    with pytest.raises(TimeLimitExceeded, match="more than 2 s while running the model"):
        session.run({"hang": NOTHING})
    assert time.monotonic() - start < 20
    assert gone(process)
    with pytest.raises(TimeLimitExceeded, match="more than 2 s while opening the model"):
        bad(time_limit=2, hang=True)


def test_errors_cross_and_the_worker_lives_on(bad) -> None:
    session = bad()
    with pytest.raises(RuntimeFailure, match="from the runtime"):
        session.run({"raise": NOTHING})
    data = np.arange(3_000_000, dtype=np.float32)
    np.testing.assert_array_equal(session.run({"noise": data})["bytes"], data[::-1])
    with pytest.raises(InputError, match="refused") as refusal:
        bad(refuse=True)
    assert refusal.value.hint == "ask otherwise"
    with pytest.raises(RuntimeFailure, match="a kind of error") as failure:
        session.run({"own error": NOTHING})
    assert failure.value.hint == "a hint"
    with pytest.raises(RuntimeFailure, match=r"bad answered what cannot be sent: .*pickle"):
        session.run({"unsendable": NOTHING})
    assert session.run({"noise": NOTHING})["bytes"] == NOTHING


def test_standard_input_is_not_where_requests_come_from(bad) -> None:
    assert bytes(bad().run({"read stdin": NOTHING})["read"]) == b"."


def test_ctrl_c_is_for_the_parent_to_understand(bad) -> None:
    session = bad()
    assert session.run({"interrupt": NOTHING}) == {}
    assert pid(session)


def test_an_interrupted_request_leaves_no_answer_for_the_next(bad, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(stream: object) -> None:
        raise KeyboardInterrupt

    session = bad()
    monkeypatch.setattr("gn_deploy.runtimes.worker.receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        session.run({"noise": NOTHING})
    with pytest.raises(RuntimeFailure, match="has ended"):
        session.run({"noise": NOTHING})


def test_a_memory_limit_holds(bad) -> None:
    assert bad().run({"memory": NOTHING})["size"] == 2**32
    session = bad(memory_limit=2**31)
    first = pid(session)
    with pytest.raises(RuntimeFailure, match="out of memory") as failure:
        session.run({"memory": NOTHING})
    assert "its memory limit is 2GiB" in failure.value.hint
    session.close()
    assert pid(bad(memory_limit=2**31)) != first, "a process that ran out of memory is not used again"


def test_a_memory_limit_that_loading_alone_exceeds_is_the_users_mistake(bad) -> None:
    with pytest.raises(InputError, match=r"loading bad takes [\d.]+MiB, the memory limit is 1MiB") as refusal:
        bad(memory_limit=2**20)
    needed = refusal.value.hint.rpartition(" ")[2]
    assert needed.endswith("MiB")
    assert bad(memory_limit=int(needed.removesuffix("MiB")) * 2**20).run({"noise": NOTHING})
    for text, limit in (("1.5KiB", 1536), ("8GiB", 2**33), ("100B", 100), ("3TiB", 3 * 2**40)):
        assert in_bytes(limit) == text
    for limits in ({"time": 0.0}, {"time": float("nan")}, {"memory": 0}):
        with pytest.raises(InputError, match="limit of"):
            Limits(**limits)  # type: ignore[arg-type]


def test_onnxruntime_and_openvino_work_within_the_default_limit() -> None:
    model, scale, bias = instance_norm()
    x = sample((2, 8, 8, 8))
    for name in ("onnxruntime", "openvino", "onnx-reference"):
        session = isolated(RUNTIMES.require(name), Limits(memory=2**30)).open(model)
        assert isinstance(session, ChildSession)
        assert session.precision == "float32"
        assert relative_error(session.run({"x": x})["y"], formula(x, 2, scale, bias)) < 2e-6  # a few roundings
        session.close()


def test_options_reach_the_runtime() -> None:
    model, _, _ = instance_norm()
    runtime = isolated(RUNTIMES.require("onnxruntime"))
    runtime.open(model, optimization="none", threads=1, disabled_optimizers=["ConstantFolding"]).close()  # type: ignore[call-arg]
    with pytest.raises(InputError, match="unknown graph optimization 'most'"):
        runtime.open(model, optimization="most")  # type: ignore[call-arg]
    with pytest.raises(InputError, match="cannot run in float128"):
        isolated(RUNTIMES.require("openvino")).open(model, precision="float128")


def test_absent_runtimes_stay_unavailable() -> None:
    with pytest.raises(UnavailableError, match="CUDAExecutionProvider"):
        ChildSession("ort-cuda", instance_norm()[0])


def test_a_worker_serves_one_model_after_another_and_is_replaced_after_a_crash(bad) -> None:
    first = bad()
    process = pid(first)
    second = bad()
    assert pid(second) != process, "two at once: a crash of one leaves the other"
    with pytest.raises(RuntimeFailure, match="SIGSEGV"):
        second.run({"segfault": NOTHING})
    assert pid(first) == process
    first.close()
    with pytest.raises(RuntimeFailure, match="is closed"):
        first.run({"pid": NOTHING})
    third = bad()
    assert pid(third) == process
    third._worker._process.kill()  # type: ignore[union-attr]  # as if from outside, between two requests
    with pytest.raises(RuntimeFailure, match="SIGKILL"):
        pid(third)
    assert pid(bad()) not in (process, pid(bad()))


def test_an_idle_worker_that_died_is_replaced(bad) -> None:
    first = bad()
    process = pid(first)
    first.close()
    os.kill(process, signal.SIGKILL)
    time.sleep(0.2)
    assert pid(bad()) != process


def test_few_idle_workers_are_kept(bad, monkeypatch: pytest.MonkeyPatch) -> None:
    WORKERS.close()
    monkeypatch.setattr("gn_deploy.runtimes.worker.IDLE", 1)
    opened = [bad() for _ in range(2)]
    processes = [pid(session) for session in opened]
    for session in opened:
        session.close()
    assert [psutil.pid_exists(process) for process in processes] == [False, True]
    WORKERS.close()
    assert not any(map(psutil.pid_exists, processes))


def test_a_change_of_the_environment_is_seen(bad, monkeypatch: pytest.MonkeyPatch) -> None:
    first = bad()
    process = pid(first)
    first.close()
    monkeypatch.setenv("ORT_ANYTHING", "1")
    assert pid(bad()) != process


def test_a_forgotten_worker_ends() -> None:
    worker = Worker("onnxruntime")
    process = worker._process.pid
    os.kill(process, 0)
    del worker
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    assert signal.getsignal(signal.SIGCHLD) in (signal.SIG_DFL, None)


def test_a_fork_leaves_the_worker_to_the_one_that_started_it(bad) -> None:
    session, idle = bad(), bad()
    process = pid(session)
    idle.close()
    child = os.fork()
    if not child:
        told = 1
        with suppress(BaseException):
            assert not WORKERS._idle
            try:
                session.run({"pid": NOTHING})
            except RuntimeFailure as failure:
                told = 0 if "not a fork of it" in failure.message else 2
            session.close()
        os._exit(told)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert pid(session) == process


PARENT = """
    import sys
    import numpy as np
    from pathlib import Path
    from gn_deploy.runtimes.isolated import ChildSession
    session = ChildSession("bad", Path(sys.argv[1]))
    print(int(session.run({"pid": np.zeros(1)})["pid"]), flush=True)
    session.run({sys.argv[2]: np.zeros(1)})
"""


def test_a_worker_dies_with_its_parent_whatever_it_is_doing(bad, tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT), str(tmp_path / "m.onnx"), "spin"],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"},
    )
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    time.sleep(0.3)
    assert psutil.pid_exists(worker)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(worker)


def linear() -> TorchModel:
    """Made over there; the same numbers each time."""
    import torch

    torch.manual_seed(0)
    return TorchModel(torch.nn.Sequential(torch.nn.GroupNorm(2, 8)), ("x",), ("y",), load=linear)


def test_a_module_goes_over_when_it_can_be_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    x = sample((2, 8, 4, 4))
    runtime = isolated(RUNTIMES.require("torch"))
    session = runtime.open(linear())
    assert isinstance(session, ListeningChild)
    assert session.run_tapped({"x": x}).keys() == {"y", "0:input", "0:output"}
    assert relative_error(session.run({"x": x})["y"], formula(x, 2, np.ones(8), np.zeros(8))) < 2e-6
    session.close()
    here = runtime.open(TorchModel(linear().module, ("x",), ("y",)))
    assert not isinstance(here, ChildSession)


def test_a_runtime_that_a_worker_would_not_find_stays_here() -> None:
    class Unregistered:
        name = "onnxruntime"

        def open(self, model: object, *, precision: str | None = None) -> str:
            return "opened here"

    assert isolated(Unregistered()).open("m") == "opened here"  # type: ignore[arg-type]
    assert isinstance(isolated(isolated(RUNTIMES.require("torch"))), Isolated)
