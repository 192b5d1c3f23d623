"""What a sweep found, as JSON: a line for each time, and the layers of it that a fit reads."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gn_deploy.graph.atomic import atomic
from gn_deploy.plugin.problem import Device, Problem
from scripts.gpu.cases import Case
from scripts.gpu.choices import COLUMNS, Key
from scripts.gpu.fit import Layer
from scripts.gpu.results import case_of, finite

FORMAT = 1
TIMED = (*COLUMNS, "us", "rounds")


def begun(cases: Sequence[Case], **known: Any) -> dict[str, Any]:
    """Nothing timed yet."""
    return {
        "format": FORMAT,
        "columns": " ".join(TIMED),
        "spent_s": 0.0,
        "finished": False,
        "unfinished": [],
        "layers": {case.key: _layer(case) for case in cases},
    } | known


def _layer(case: Case) -> dict[str, Any]:
    return {
        "net": case.net,
        "shape": list(case.shape),
        "groups": case.groups,
        "dtype": case.dtype,
        "layout": case.layout,
        "epilogue": case.epilogue,
        "rows": [],
    }


def write(path: Path, found: dict[str, Any]) -> None:
    """Complete or not at all."""
    layers = {key: row | {"rows": [_line(each) for each in row["rows"]]} for key, row in found["layers"].items()}
    text = json.dumps(finite(found | {"layers": layers}), indent=1, allow_nan=False)
    with atomic(path) as (file,):
        file.write(text.encode() + b"\n")


def _line(row: Sequence[Any]) -> str:
    *k, us, rounds = row
    return " ".join([*map(str, k), f"{us:.3f}", str(rounds)])


def read(path: Path) -> dict[str, Any]:
    """With rows as they were before they were written. Raises ValueError with what is no sweep in the file."""
    found: dict[str, Any] = json.loads(path.read_text())
    if not isinstance(found, dict) or found.get("format") != FORMAT or found.get("columns") != " ".join(TIMED):
        raise ValueError(f"{path}: no sweep in format {FORMAT} with columns {' '.join(TIMED)}")
    try:
        Device(**found["gn_device"])
        for key, row in found["layers"].items():
            if case_of(row).key != key:
                raise ValueError(f"{path}: {key} is {case_of(row).key}")
            row["rows"] = [_row(line) for line in row["rows"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: {error} is missing or of another kind") from None
    return found


def _row(line: str) -> list[Any]:
    variant, *numbers, us, rounds = line.split()
    if len(numbers) != len(COLUMNS) - 1:
        raise ValueError(f"no such time: {line!r}")
    return [variant, *map(int, numbers), float(us), int(rounds)]


def layers(found: dict[str, Any]) -> list[Layer]:
    """Those with a time."""
    each = []
    for key, row in found["layers"].items():
        times: dict[Key, float] = {tuple(line[: len(COLUMNS)]): line[-2] for line in row["rows"]}
        if times:
            each.append(Layer(key, Problem(**case_of(row).problem()), times, row.get("copy_us")))
    return each


def faults(found: dict[str, Any]) -> list[str]:
    told = [f"{key}: {row['fault']}" for key, row in found["layers"].items() if row.get("fault")]
    return told + [f"{k}: {c}: {why}" for k, row in found["layers"].items() for c, why in row.get("faults", {}).items()]
