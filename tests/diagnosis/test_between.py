"""Where two runtimes part from each other."""

import onnx_ir as ir

from gn_deploy.diagnosis.between import Run, between
from gn_deploy.diagnosis.deployed import Deployed
from gn_deploy.diagnosis.locate import locate_run
from gn_deploy.runtimes.onnx_reference import ONNX_REFERENCE
from tests.diagnosis.networks import Fusing, Rounding, model, normal

WHAT = model()


def run(label: str, runtime: object, what: ir.Model = WHAT) -> Run:
    one = Deployed(label, "onnxruntime", runtime.open)  # type: ignore[attr-defined]
    return locate_run(what, one.opened, normal(what), runtime=label), one


def test_a_wrong_one_leaves_the_right_one_where_it_leaves_the_oracle() -> None:
    right, fusing = run("right", ONNX_REFERENCE), run("fusing", Fusing())
    for pair in ([right, fusing], [fusing, right]):
        (found,) = between(pair)
        assert (found.runtime, found.against, found.value) == ("fusing", "right", "pooled")
        assert found.reason == "right is right there"
        assert "at the border" in found.looks_like
    assert between([right, run("also", ONNX_REFERENCE)]) == []


def test_of_two_wrong_ones_the_first_place_is_told() -> None:
    fusing, rounding = run("fusing", Fusing()), run("rounding", Rounding("ReduceMean", "float16"))
    (found,) = between([rounding, fusing])
    assert (found.runtime, found.against, found.value) == ("fusing", "rounding", "pooled")


def test_two_that_are_wrong_alike_do_not_part() -> None:
    (found,) = between([run("one", Fusing()), run("two", Fusing())])
    assert found.value == ""
    assert found.reason == "at 'pooled' both leave the oracle, with the same numbers"
