"""The list of jobs: which models, lowered for which targets, run where and on what; each job named by its contents."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gn_deploy import __version__
from gn_deploy.errors import InputError
from gn_deploy.parity.plain import from_plain, to_plain

PLAN_VERSION = 1
"""Of plan.json; raised when a field changes its meaning or goes away."""
CASES = ("normal", "offset", "constant", "small")
"""Families run when nothing was asked for: those that ``parity`` feeds to whole models."""


@dataclass(frozen=True, slots=True)
class Named:
    """A file as it was typed, and the SHA-256 of all that is in it; a family of inputs has no digest."""

    name: str
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A target, and the runtime that runs what is lowered for it."""

    target: str
    runtime: str
    version: str
    """Of the runtime's package; "" when it is not installed."""

    @property
    def label(self) -> str:
        return self.target if _own_runtime(self.target) == self.runtime else f"{self.target} on {self.runtime}"


@dataclass(frozen=True, slots=True)
class Job:
    """Lower one model for one target, run it on one runtime and one case, judge."""

    model: Named
    column: Column
    case: Named
    dims: dict[str, int] = field(default_factory=dict)

    @property
    def contents(self) -> dict[str, Any]:
        """Everything that a verdict depends on; what files are called and how long they may take is none of it."""
        return {
            "gn_deploy": __version__,
            "model": self.model.digest,
            **to_plain(self.column),
            "case": self.case.digest or self.case.name,
            "dims": dict(sorted(self.dims.items())),
        }

    @property
    def id(self) -> str:
        """The first 24 hex digits of the SHA-256 of ``contents``: 96 bits, no collision among billions."""
        return hashlib.sha256(json.dumps(self.contents, sort_keys=True).encode()).hexdigest()[:24]

    def __str__(self) -> str:
        return f"{Path(self.model.name).name}  {self.column.label}  {self.case.name}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for; the jobs are all combinations, in order, models first."""

    models: tuple[Named, ...]
    columns: tuple[Column, ...]
    cases: tuple[Named, ...]
    dims: dict[str, int] = field(default_factory=dict)
    command: str = ""
    """What was typed."""

    @property
    def jobs(self) -> tuple[Job, ...]:
        every = itertools.product(self.models, self.columns, self.cases)
        return tuple(Job(model, column, case, self.dims) for model, column, case in every)

    def to_dict(self) -> dict[str, Any]:
        plain: dict[str, Any] = to_plain(self)
        return {"schema_version": PLAN_VERSION, "gn_deploy": __version__} | plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Plan":
        """The inverse; raises InputError for anything else."""
        if data.get("schema_version") != PLAN_VERSION:
            raise InputError(f"a plan of version {data.get('schema_version')}, this release reads {PLAN_VERSION}")
        try:
            return from_plain(cls, data)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"not a plan: {type(error).__name__} {error}", "run the whole command again") from None


def make_plan(
    models: Sequence[str | Path],
    targets: Sequence[str],
    *,
    runtimes: Sequence[str] = (),
    families: Sequence[str] = (),
    data: Sequence[str | Path] = (),
    dims: Mapping[str, int] | None = None,
    command: str = "",
) -> Plan:
    """Everything is looked at once, so that a mistake is told before the work: InputError for files that are no
    models, targets, runtimes and families that do not exist, a size in ``dims`` that no model has a name for.

    Without ``runtimes`` each target is run by its own; with them every target is run on each. Without ``families``
    and ``data`` the cases are CASES.
    """
    if not models:
        raise InputError("no model was given", "for example gn-deploy matrix models/*.onnx --target ort-cpu")
    if not targets:
        raise InputError("no target was given", "for example --target ort-cpu --target openvino")
    files = tuple(Named(str(path), model_digest(Path(path))) for path in _once("model", map(str, models)))
    _find_dims(files, dims or {})
    return Plan(
        files,
        tuple(_columns(_once("target", targets), runtimes)),
        (*_families(families or (() if data else CASES)), *(Named(str(p), data_digest(Path(p))) for p in data)),
        dict(dims or {}),
        command,
    )


def model_digest(path: Path) -> str:
    """Of an ONNX file and of the data files it names."""
    import onnx_ir as ir

    from gn_deploy.graph.io import load
    from gn_deploy.graph.slots import slots

    if path.suffix == ".py":
        raise InputError(f"'{path}' is a recipe, a matrix is made of ONNX files", f"first: gn-deploy export {path}")
    tensors = [slot.get() for slot in slots(load(path))]
    return _digest([path, *sorted({Path(t.path) for t in tensors if isinstance(t, ir.ExternalTensor)})])


def _find_dims(models: Sequence[Named], dims: Mapping[str, int]) -> None:
    """One model with an input's dim of the name is enough: a matrix holds models of all kinds."""
    from gn_deploy.graph.io import load
    from gn_deploy.parity.cases import input_specs, named
    from gn_deploy.parity.sizes import free_dims

    if not dims:
        return
    known = {dim for model in models for dim in free_dims(named(input_specs(load(Path(model.name)))))}
    if unknown := sorted(dims.keys() - known):
        told = f"dynamic dims: {', '.join(sorted(known)) or '-'}"
        raise InputError(f"no model has an input with a dim named '{unknown[0]}'", told)


def data_digest(path: Path) -> str:
    """Of a file, or of all files of a folder with their names."""
    if not path.exists():
        raise InputError(f"no such file: {path}", "inputs of your own: a file or a folder")
    return _digest(sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path])


def changed(plan: Plan) -> list[str]:
    """Files of a plan made earlier that are gone or hold something else now."""
    found = []
    for named, digest in [(m, model_digest) for m in plan.models] + [(c, data_digest) for c in plan.cases if c.digest]:
        try:
            same = digest(Path(named.name)) == named.digest
        except InputError:
            same = False
        found += [] if same else [named.name]
    return found


def _digest(files: Sequence[Path]) -> str:
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
        if len(files) > 1 and path is not files[0]:
            whole.update(path.name.encode())
    return whole.hexdigest()


def _columns(targets: Iterable[str], runtimes: Sequence[str]) -> list[Column]:
    from gn_deploy.api import checked_target
    from gn_deploy.runtimes import RUNTIMES, resolve

    columns = []
    for text in targets:
        target = str(checked_target(text))
        for name in dict.fromkeys(map(resolve, runtimes)) or [_own_runtime(target)]:
            if name == "torch":
                raise InputError("the runtime 'torch' runs modules, not ONNX files", "choose another --runtime")
            columns.append(Column(target, name, RUNTIMES.require(name).probe().version or ""))
    return columns


def _own_runtime(target: str) -> str:
    from gn_deploy.runtimes import resolve
    from gn_deploy.targets import Target

    return resolve(Target.parse(target).runtime)


def _families(names: Sequence[str]) -> list[Named]:
    from difflib import get_close_matches

    from gn_deploy.parity.families import FAMILIES

    for name in names:
        if name not in FAMILIES:
            near = get_close_matches(name, FAMILIES, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(FAMILIES)}"
            raise InputError(f"unknown family of inputs '{name}'", hint)
    return [Named(name) for name in dict.fromkeys(names)]


def _once(kind: str, names: Iterable[str]) -> list[str]:
    found = list(dict.fromkeys(names))
    if "" in found:
        raise InputError(f"a {kind} has no name", "check the command line")
    return found
