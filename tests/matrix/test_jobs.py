"""Real jobs: lowered, run, judged; and whatever takes a job's process down."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from gn_deploy.errors import InputError
from gn_deploy.graph.io import load
from gn_deploy.matrix import local
from gn_deploy.matrix.files import write
from gn_deploy.matrix.job import _known, failed, run_job
from gn_deploy.matrix.plan import Column, Named, Plan, changed, data_digest, make_plan, model_digest
from gn_deploy.matrix.report import MatrixReport
from gn_deploy.matrix.run import resume, run
from gn_deploy.parity.cases import input_specs, model_cases
from gn_deploy.parity.status import Status
from gn_deploy.runtimes.isolated import Limits
from tests.cli.conftest import model
from tests.matrix.quick import environment


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two models, in which the test stands; its modules are found by job processes too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    Path("a.onnx").write_bytes(model().SerializeToString())
    Path("b.onnx").write_bytes(model(groups=4, epsilon=1e-3).SerializeToString())
    return tmp_path


def test_models_are_lowered_run_and_judged(typed: Path) -> None:
    asked = make_plan(["a.onnx", "b.onnx"], ["ort-cpu", "onnx+native"], runtimes=["ort"], families=["constant"])
    assert [column.label for column in asked.columns] == ["ort-cpu", "onnx+native on onnxruntime"]
    report = run(asked, Path("m"))
    assert [(job.model, job.target, job.status) for job in report.jobs] == [
        ("a.onnx", "ort-cpu", Status.PASS),
        ("a.onnx", "onnx+native", Status.UNSTABLE),
        ("b.onnx", "ort-cpu", Status.PASS),
        ("b.onnx", "onnx+native", Status.UNSTABLE),
    ]
    assert [job.rewritten for job in report.jobs] == [(1, 1), (0, 1)] * 2
    assert report.exit_code == 1
    cell = report.cell("a.onnx", asked.columns[1])
    assert (cell.status, cell.cases, cell.left) == (Status.UNSTABLE, 1, 0)
    assert cell.error > 10
    inner = report.jobs[0].report
    assert inner is not None
    assert [site.site for site in inner.sites] == ["norm"]
    assert inner.runtimes[0].process == "own"
    assert inner.reference == "a.onnx"
    stored = [json.loads(file.read_text()) for file in Path("m", "results").iterdir()]
    assert {document["job"]["model"] for document in stored} == {model_digest(Path(p)) for p in ("a.onnx", "b.onnx")}
    assert all(document["report"]["reference"] in document["job"]["model"] for document in stored), "not its name"


def test_data_of_your_own_is_a_case(typed: Path) -> None:
    np.savez("mine.npz", x=np.ones((3, 4, 4, 4), np.float32))
    asked = make_plan(["a.onnx"], ["onnx"], data=["mine.npz"], dims={"batch": 3})
    assert asked.cases == (Named("mine.npz", data_digest(Path("mine.npz"))),)
    [job] = run(asked, Path("m")).jobs
    assert job.status is Status.PASS
    np.savez("mine.npz", x=np.ones((3, 5, 4, 4), np.float32))
    assert changed(asked) == ["mine.npz"]
    with pytest.raises(InputError, match=r"'mine\.npz' is not what it was"):
        resume(Path("m"))
    [job] = run(make_plan(["a.onnx"], ["onnx"], data=["mine.npz"]), Path("m")).jobs
    assert (job.status, job.exit_code) == (Status.NOTRUN, 2)
    assert "has shape (3, 5, 4, 4)" in job.reason


def test_a_size_is_for_the_models_that_have_a_name_for_it(typed: Path) -> None:
    other = onnx.load("a.onnx")
    sizes = other.graph.input[0].type.tensor_type.shape.dim
    sizes[0].ClearField("dim_param")
    sizes[2].dim_param = "height"
    onnx.save(other, "other.onnx")
    asked = make_plan(
        ["a.onnx", "other.onnx"], ["onnx"], families=["normal"], dims={"batch": 3, "height": 7, "x[0]": 5}
    )
    drawn = []
    for job in asked.jobs:
        specs = input_specs(load(Path(job.model.name)))
        (case,) = model_cases(specs, ["normal"], _known(job, specs))
        drawn.append(case.feeds["x"].shape)
    assert drawn == [(3, 4, 4, 4), (5, 4, 7, 4)]


def test_a_digest_is_of_everything_a_model_consists_of(typed: Path) -> None:
    first = model_digest(Path("a.onnx"))
    assert first == model_digest(Path("a.onnx"))
    assert first != model_digest(Path("b.onnx"))
    proto = model()
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones(4, np.float32), "scale"))
    onnx.save(proto, "e.onnx", save_as_external_data=True, location="e.data", size_threshold=0)
    before = model_digest(Path("e.onnx"))
    content = Path("e.data").read_bytes()
    Path("e.data").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert model_digest(Path("e.onnx")) != before


def test_mistakes_are_told_before_the_work(typed: Path) -> None:
    Path("not.onnx").write_text("hello")
    for models, targets, options, told in (
        ([], ["onnx"], {}, "no model was given"),
        (["a.onnx"], [], {}, "no target was given"),
        (["c.onnx"], ["onnx"], {}, "c.onnx"),
        (["not.onnx"], ["onnx"], {}, "not.onnx"),
        (["m.py"], ["onnx"], {}, "is a recipe"),
        (["a.onnx"], ["onnz"], {}, "unknown target"),
        (["a.onnx"], ["onnx"], {"runtimes": ["ortt"]}, "unknown runtime"),
        (["a.onnx"], ["onnx"], {"runtimes": ["torch"]}, "runs modules"),
        (["a.onnx"], ["onnx"], {"families": ["normall"]}, "unknown family of inputs 'normall'"),
        (["a.onnx"], ["onnx"], {"data": ["nowhere"]}, "no such file: nowhere"),
        (["a.onnx"], ["onnx"], {"dims": {"batch": 3, "foo": 3}}, "no model .* 'foo' .dynamic dims: batch"),
    ):
        with pytest.raises(InputError, match=told):
            make_plan(models, targets, **options)  # type: ignore[arg-type]
    asked = make_plan(["a.onnx"], ["onnx"], families=["normal"], dims={"batch": 3})
    assert Plan.from_dict(asked.to_dict()) == asked


def test_what_is_absent_or_other_than_planned_is_no_verdict(typed: Path) -> None:
    [absent] = run(make_plan(["a.onnx"], ["ort-cuda"], families=["normal"]), Path("m")).jobs
    assert (absent.status, absent.exit_code) == (Status.NOTRUN, 3)
    assert "CUDAExecutionProvider" in absent.reason
    other = Plan(
        (Named("a.onnx", model_digest(Path("a.onnx"))),), (Column("onnx", "onnx-reference", "0.1"),), (Named("normal"),)
    )
    result = run_job(other.jobs[0], Path("a.onnx"), None, Limits())
    assert result["exit_code"] == 2
    assert "the plan was made with 0.1" in result["reason"]
    bug = failed(other.jobs[0], ZeroDivisionError("division by zero"))
    assert bug["exit_code"] == 70
    assert "a bug in gn_deploy, not in the model: ZeroDivisionError" in bug["reason"]


def die(job: object, model: Path, *rest: object) -> None:
    """In place of ``run_job``, over there; a model's name says how."""
    os.kill(os.getpid(), signal.SIGBUS if model.name == "a.onnx" else signal.SIGSEGV)


def hang(*_: object) -> None:
    signal.pause()


def test_the_end_of_a_jobs_process_is_a_result_and_the_next_job_has_a_new_one(
    typed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = make_plan(["a.onnx", "b.onnx"], ["onnx"], families=["normal"])
    monkeypatch.setattr(local, "run_job", die)
    report = run(asked, Path("m"))
    assert [job.status for job in report.jobs] == [Status.CRASH] * 2
    assert "crashed (SIGBUS)" in report.jobs[0].reason
    assert "crashed (SIGSEGV)" in report.jobs[1].reason
    assert report.exit_code == 1
    for name, value in (("run_job", hang), ("REQUESTS", 1), ("STARTING", 0)):
        monkeypatch.setattr(local, name, value)
    report = run(asked, Path("m"), limits=Limits(time=1.5), retry=("crash",))
    assert [job.status for job in report.jobs] == [Status.TIMEOUT] * 2
    assert "took more than 1.5 s" in report.jobs[0].reason


def test_a_runtimes_limits_are_kept_in_a_job(typed: Path) -> None:
    asked = make_plan(["a.onnx"], ["ort-cpu"], families=["normal"])
    [job] = run(asked, Path("m"), limits=Limits(time=0.01)).jobs
    assert job.status is Status.TIMEOUT
    assert "onnxruntime took more than 0.01 s while opening" in job.reason
    report = run(asked, Path("m"), retry=("timeout",))
    assert [(job.status, job.attempt) for job in report.jobs] == [(Status.PASS, 2)]
    paths = write(report, Path("m"))
    assert [path.name for path in paths] == ["report.json", "junit.xml", "report.html"]
    assert MatrixReport.from_dict(json.loads(paths[0].read_text())).to_dict() == report.to_dict()
