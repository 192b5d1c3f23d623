"""For tests of your own: one line that fails, and says why, when a model no longer computes what it should.

With pytest or without::

    import torch
    from torch import nn

    from gn_deploy.testing import assert_parity


    def test_my_model_deploys():
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(4, 8), nn.SiLU())
        assert_parity(model, runtimes=["onnxruntime"], inputs=torch.randn(2, 3, 16, 16))


    def test_the_file_we_ship(tmp_path):
        import gn_deploy as gn

        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(4, 8), nn.SiLU())
        inputs = torch.randn(2, 3, 16, 16)
        gn.export(model, inputs, target="ort-cpu", out=tmp_path / "model.onnx")
        assert_parity(tmp_path / "model.onnx", reference=model, inputs=inputs, report=tmp_path / "report")

A failure is an AssertionError of a few lines: the verdict, what broke and where, what to do next, and where the report
is when one was asked for.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from gn_deploy import api
from gn_deploy.errors import ExitCode, InputError, UnavailableError

if TYPE_CHECKING:
    from gn_deploy.parity.report import ParityReport

SHOWN = 5  # problems in the message; the rest is counted, and stands in the report
EXPORT = "export"
"""What a report calls the exported model, evaluated as the ONNX standard says and judged against the module itself."""


def assert_parity(
    model: Any,
    runtimes: str | Sequence[str] | None = None,
    *,
    reference: Any = None,
    data: Any = None,
    inputs: Any = None,
    missing: str = "error",
    report: str | Path | None = None,
    **options: Any,
) -> "ParityReport":
    """The report when ``model`` on every one of ``runtimes`` computes what ``reference`` does; else AssertionError.

    1. ``model`` is a path, an onnx.ModelProto, an onnx_ir.Model, a torch ONNXProgram, a recipe, or an ``nn.Module``
       with example ``inputs`` (a tensor, a tuple or a dict of them), which is exported.
    2. ``reference`` is any of these, too. Without one the model is held to what it says itself: every GroupNorm in
       float64 and two passes. A module is the truth where there is one: what it is exported to is judged against the
       module first, then every runtime against that.
    3. ``runtimes`` are names as in ``gn-deploy doctor``; none is the ONNX standard alone. One that cannot run here
       raises UnavailableError, which says what to install. With ``missing="skip"`` the others are judged and then, if
       nothing broke, the test is skipped: it never passes without having run everything that was asked for.
    4. ``report`` is a folder for report.html, report.json and junit.xml, written whether parity holds or not.
    5. ``data`` and ``options`` are those of ``gn_deploy.compare``: dims, atol, rtol, metric, allowed_drop, ...

    Raises InputError for what is no model and for arguments that do not fit.
    """
    __tracebackhide__ = True  # pytest shows the user's line, not these
    if missing not in ("error", "skip"):
        raise InputError(f"missing='{missing}'", "'error', or 'skip' to skip the test when a runtime is not here")
    wanted = (runtimes,) if isinstance(runtimes, str) else tuple(dict.fromkeys(runtimes or ()))
    absent = _absent(wanted)
    if absent and missing == "error":
        raise UnavailableError(_said(absent), "install it, or ask with missing='skip'")
    here = [name for name in wanted if name not in absent]
    if absent and not here:
        _skip(absent)
    subject = _opened(model, inputs)
    truth = subject if reference is None else _opened(reference, inputs)
    if truth.sizes and data is None and options.get("network", True):
        options.setdefault("dims", truth.sizes)
    found = api.compare(truth.source, subject.source, runtimes=here, data=data, **options)
    found = replace(found, reference=truth.name, candidate=subject.name)
    for one in {id(side): side for side in (truth, subject)}.values():
        found = _with_export(found, one)
    written = _written(found, report)
    if found.exit_code is ExitCode.UNAVAILABLE:  # it was here when it was looked for
        late = {v.runtime: v.reason for v in found.runtimes if str(v.status) == "notrun"}
        if missing == "error":
            raise UnavailableError(_said(late), "ask with missing='skip' to skip the test then")
        absent |= late
    elif not found.held:
        raise AssertionError(_message(found, written))
    if absent:
        _skip(absent)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    """A model as it was given: something to compare, and the module it came from."""

    source: Any
    name: str
    module: Any = None
    inputs: Any = None

    @property
    def sizes(self) -> dict[str, int]:
        """Of the dynamic dimensions, in the example inputs."""
        from gn_deploy.exporters.examples import named_inputs
        from gn_deploy.parity.cases import input_specs

        if self.module is None:
            return {}
        given = named_inputs(self.module, self.inputs).values()
        pairs = [
            (d, n)
            for s, t in zip(input_specs(self.source), given, strict=True)
            for d, n in zip(s.shape, t.shape, strict=True)
        ]
        return {d: int(n) for d, n in pairs if isinstance(d, str)}


def _opened(model: Any, inputs: Any) -> _Side:
    from gn_deploy.exporters.recipe import Recipe, load_recipe

    if isinstance(model, str | Path):
        name = str(model)
        if Path(model).suffix != ".py":
            return _Side(Path(model), name)
        model = load_recipe(model)
    else:
        name = getattr(model, "name", "") if isinstance(model, Recipe) else type(model).__name__
    dynamic: Any = True
    if isinstance(model, Recipe):
        model, inputs, dynamic = model.module, model.inputs if inputs is None else inputs, model.dynamic
    if not hasattr(model, "state_dict"):
        return _Side(model, "model")
    if inputs is None:
        raise InputError(f"{name} is a module, which is exported with example inputs", "give inputs=(tensor, ...)")
    exported = api.export(model, inputs, dynamic=dynamic, verify=False).model
    return _Side(exported, name, model, inputs)


def _with_export(report: "ParityReport", side: _Side) -> "ParityReport":
    """The report, and before it what was exported judged against its module."""
    if side.module is None:
        return report
    from gn_deploy.parity.export import against_module

    own = against_module(side.module, side.inputs, side.source)
    first: dict[str, Any] = {}
    for rows in ("runtimes", "sites", "outputs"):
        first[rows] = (*(replace(v, runtime=EXPORT) for v in getattr(own, rows)), *getattr(report, rows))
    return replace(report, **first)


def _absent(runtimes: Iterable[str]) -> dict[str, str]:
    """Names of those that cannot run here, and why."""
    from gn_deploy.registry import Unavailable
    from gn_deploy.runtimes import RUNTIMES, resolve

    found = {}
    for name in runtimes:
        entry = RUNTIMES.get(resolve(name))
        if isinstance(entry, Unavailable):
            found[name] = entry.reason
        elif not (probe := entry.probe()).run:
            found[name] = probe.run.reason
    return found


def _said(absent: Mapping[str, str]) -> str:
    return "; ".join(f"runtime '{name}' cannot run here: {why}" for name, why in absent.items())


def _skip(absent: Mapping[str, str]) -> NoReturn:
    """By pytest when it runs the test, else as unittest knows it."""
    __tracebackhide__ = True
    import sys
    from unittest import SkipTest

    if "pytest" in sys.modules:
        import pytest

        pytest.skip(_said(absent))
    raise SkipTest(_said(absent))


def _written(report: "ParityReport", folder: str | Path | None) -> list[Path]:
    from gn_deploy.reports import write

    return [] if folder is None else write(report, folder)


def _message(report: "ParityReport", written: Sequence[Path]) -> str:
    from gn_deploy.reports.advice import next_steps
    from gn_deploy.reports.sentences import confidence
    from gn_deploy.reports.summary import headline, outcome, problems

    told = problems(report)
    sure = [f"  {confidence(report.confidence)}"] if report.unsettled else []
    lines = [f"{outcome(report)}. {headline(report)}", *sure]
    lines += [f"  {status}  {where}: {why}" for where, status, why in told[:SHOWN]]
    lines += [f"  and {len(told) - SHOWN} more"] if len(told) > SHOWN else []
    lines += [f"Next: {step}" for step in next_steps(report)]
    chief = next((p for p in written if p.suffix == ".html"), written[0] if written else None)
    lines += [f"The whole report: {chief}"] if chief is not None else ["report=FOLDER writes the whole report."]
    return "\n".join(lines)
