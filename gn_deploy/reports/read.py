"""report.json read back, of every schema version this release knows."""

import json
from pathlib import Path
from typing import Any

from gn_deploy.errors import InputError
from gn_deploy.parity.report import ParityReport

FILENAME = "report.json"
_HINT = "needed: report.json as 'gn-deploy parity A B --report DIR' writes it"


def read(path: str | Path) -> ParityReport:
    """The report in a file, or in the folder of ``--report``; InputError says what is wrong with anything else."""
    path = Path(path)
    if path.is_dir():
        path = path / FILENAME
    try:
        data = json.loads(path.read_bytes(), parse_constant=_refuse)
    except FileNotFoundError:
        raise InputError(f"no such file: {path}", _HINT) from None
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8
        raise InputError(f"{path} is not JSON: {error}", _HINT) from None
    if isinstance(data, dict) and data.get("kind") == "matrix":
        raise InputError(f"{path} is the report of a matrix", "name the result of one of its jobs, results/ID.json")
    if isinstance(data, dict) and isinstance(data.get("report"), dict):  # a job's result, what demo --json prints
        data = data["report"]
    if not isinstance(data, dict) or "schema_version" not in data:
        raise InputError(f"{path} is not a parity report: it has no schema_version", _HINT)
    try:
        return ParityReport.from_dict(data)
    except InputError as error:
        raise InputError(f"{path}: {error.message}", error.hint or _HINT) from None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number of JSON")
