"""What a run found, as JSON: its shape, its writing after every step, and what may be said of it in the end."""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gn_deploy.graph.atomic import atomic
from scripts.gpu.cases import CASES, Case
from scripts.gpu.targets import target, verdict

FORMAT = 1
_NUMBER, _TEXT = (int, float), (str,)
SCHEMA: dict[str, Any] = {
    "format": (int,),
    "date": _TEXT,
    "command": _TEXT,
    "device": dict,
    "versions": dict,
    "library": dict,
    "budget_s": _NUMBER,
    "spent_s": _NUMBER,
    "finished": (bool,),
    "unfinished": list,
    "launch_us": (*_NUMBER, type(None)),
    "checks": {"ran": (int,), "faults": list, "variants": dict},
    "sanitizer": dict,
    "cases": dict,
}
"""Key -> types of its value, or its own keys."""
ROW: dict[str, Any] = {
    "net": _TEXT,
    "shape": list,
    "groups": (int,),
    "dtype": _TEXT,
    "layout": _TEXT,
    "epilogue": _TEXT,
    "moved_bytes": (int,),
    "target": {"ratio": _NUMBER, "why": _TEXT},
    "verdict": {"copy": _TEXT, "eager": _TEXT, "compile": _TEXT},
}
"""Of each case, timed or not; times are in keys that end in _us."""


def begun(cases: Sequence[Case], **known: Any) -> dict[str, Any]:
    """Nothing measured yet."""
    return {
        "format": FORMAT,
        "device": {},
        "versions": {},
        "library": {},
        "spent_s": 0.0,
        "finished": False,
        "unfinished": [],
        "launch_us": None,
        "checks": {"ran": 0, "faults": [], "variants": {}},
        "sanitizer": {},
        "cases": {case.key: _row(case) for case in cases},
    } | known


def _row(case: Case) -> dict[str, Any]:
    promised = target(case)
    return {
        "net": case.net,
        "shape": list(case.shape),
        "groups": case.groups,
        "dtype": case.dtype,
        "layout": case.layout,
        "epilogue": case.epilogue,
        "moved_bytes": case.moved_bytes,
        "target": {"ratio": promised.ratio, "why": promised.why},
        "verdict": verdict(case, {}),
    }


def case_of(row: dict[str, Any]) -> Case:
    return Case(row["net"], tuple(row["shape"]), row["epilogue"], row["dtype"], row["layout"], row["groups"])


def write(path: Path, results: dict[str, Any]) -> None:
    """Complete or not at all; with the verdicts as they stand, and null for what is not finite."""
    for row in results["cases"].values():
        row["verdict"] = verdict(case_of(row), row)
    text = json.dumps(finite(results), indent=1, allow_nan=False)
    with atomic(path) as (file,):
        file.write(text.encode() + b"\n")


def read(path: Path) -> dict[str, Any]:
    """Raises ValueError with every way in which it is no result file."""
    found: dict[str, Any] = json.loads(path.read_text())
    wrong = problems(found)
    if wrong:
        raise ValueError(f"{path}: {'; '.join(wrong)}")
    return found


def problems(found: dict[str, Any]) -> list[str]:
    """Every key that is missing, unknown, or of another type."""
    wrong = _against(SCHEMA, found, "", exact=True)
    for key, row in found.get("cases", {}).items():
        wrong += _against(ROW, row, f"cases.{key}.", exact=False)
        if not wrong and case_of(row).key != key:
            wrong.append(f"cases.{key} is {case_of(row).key}")
    return wrong


def _against(schema: dict[str, Any], found: dict[str, Any], where: str, *, exact: bool) -> list[str]:
    wrong = [f"{where}{key} is missing" for key in schema.keys() - found.keys()]
    wrong += [f"{where}{key} is unknown" for key in found.keys() - schema.keys() if exact]
    for key in schema.keys() & found.keys():
        kind, value = schema[key], found[key]
        if isinstance(kind, dict):
            wrong += _against(kind, value, f"{where}{key}.", exact=exact)
        elif not isinstance(value, kind) or (isinstance(value, bool) and kind is not dict and bool not in kind):
            wrong.append(f"{where}{key} is {value!r}")
    return sorted(wrong)


def faults(results: dict[str, Any]) -> list[str]:
    """Whatever makes the run a failure; a target that was missed does not."""
    told = [f"{f['variant']}: {f['check']}: {'; '.join(f['faults'])}" for f in results["checks"]["faults"]]
    for key, row in results["cases"].items():
        told += [f"{key}: {fault}" for fault in (row.get("fault"), row.get("eager_fault")) if fault]
        told += [f"{v}: {key}: {d['fault']}" for v, d in row.get("variants", {}).items() if "fault" in d]
    tools = results["sanitizer"].get("tools", {})
    told += [f"{tool}: {found['errors']} errors" for tool, found in tools.items() if found["status"] == "errors"]
    return told


def missed(results: dict[str, Any]) -> list[str]:
    return [
        f"{key}: {name}"
        for key, row in results["cases"].items()
        for name, said in row["verdict"].items()
        if said == "missed"
    ]


def file_name(device: str, date: str) -> str:
    """NVIDIA H200, 2026-11-28 -> nvidia-h200-2026-11-28.json"""
    return f"{re.sub(r'[^a-z0-9]+', '-', device.lower()).strip('-')}-{date}.json"


def named(words: Sequence[str]) -> tuple[Case, ...]:
    """The cases whose key or network contains any of the words; all of them without words."""
    if not words:
        return CASES
    return tuple(c for c in CASES if any(w.lower() in f"{c.net} {c.key}".lower() for w in words))


def finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
