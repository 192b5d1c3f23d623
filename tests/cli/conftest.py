"""The command line as a user types it, and small models, good and bad, to type after it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gn_deploy.cli.app import run

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ended:
    """How a command line ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """What ``--json`` printed; fails unless stdout is exactly one strict JSON document."""

        def refuse(constant: str) -> None:
            raise AssertionError(f"{constant} is not JSON")

        return json.loads(self.out, parse_constant=refuse)


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160", "TERM": "xterm-256color", **changes}


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "gn_deploy", *map(str, args)]


@pytest.fixture
def cli(tmp_path: Path) -> Callable[..., Ended]:
    """Type ``gn-deploy ARGS`` in an empty folder."""

    def typed(*args: object, **options: Any) -> Ended:
        environ = environment(**options.pop("env", {}))
        ended = subprocess.run(
            command(*args),
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environ,
            timeout=120,
            check=False,
            **options,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    return typed


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """The same without a process of its own, where what counts is the answer: torch is imported once, not each time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")

    def typed(*args: object) -> Ended:
        code = run([str(arg) for arg in args])
        return Ended(code, *capfd.readouterr())

    return typed


def model(
    *,
    groups: int = 2,
    channels: int = 4,
    epsilon: float = 1e-5,
    scale: int | None = None,
    opset: int = 21,
    name: str = "norm",
    op: str = "GroupNormalization",
    domain: str = "",
    size: tuple[int | str, ...] = (4, 4),
) -> onnx.ModelProto:
    """x (batch, channels, *size) float32 -> y: one node, or with ``op`` "Relu" one that is no GroupNorm."""
    rng = np.random.default_rng(0)
    length = channels if scale is None else scale
    parameters = [
        numpy_helper.from_array(rng.normal(1, 0.5, length).astype(np.float32), "scale"),
        numpy_helper.from_array(rng.normal(0, 0.5, length).astype(np.float32), "bias"),
    ]
    is_norm = op == "GroupNormalization"
    node = helper.make_node(
        op,
        ["x", "scale", "bias"] if is_norm else ["x"],
        ["y"],
        name=name,
        domain=domain,
        **({"num_groups": groups, "epsilon": epsilon} if is_norm else {}),
    )
    shape = ["batch", channels, *size]
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        parameters if is_norm else [],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Save ``model(**facts)`` in the folder the command is typed in."""

    def save(filename: str = "model.onnx", **facts: Any) -> Path:
        path = tmp_path / filename
        path.write_bytes(model(**facts).SerializeToString())
        return path

    return save
