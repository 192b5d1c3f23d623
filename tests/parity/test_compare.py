"""Two models compared end to end: right spellings hold, every wrong one is broken, and the site is named."""

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from gn_deploy.errors import InputError
from gn_deploy.graph.normalize import normalize
from gn_deploy.parity.harness import Subject, compare, judge
from gn_deploy.parity.status import Status
from gn_deploy.spec import GroupNormSpec
from tests.forms.writing import affine, write
from tests.parity import spellings
from tests.parity.spellings import BIAS, CHANNELS, GROUPS, ONE_PASS, RIGHT, SCALE, WRONG, Graph, alone, native, network


@pytest.mark.parametrize("model", [alone, network])
@pytest.mark.parametrize("name", RIGHT)
def test_right_spellings_hold(name: str, model) -> None:  # type: ignore[no-untyped-def]
    report = compare(model(native()), model(RIGHT[name]))
    assert report.held, report
    assert len(report.sites) == (1 if model is alone else 2)
    assert all(v.status is Status.PASS for v in report.sites)
    assert all(v.status is Status.PASS for v in report.outputs)
    assert not report.unpaired


@pytest.mark.parametrize("model", [alone, network])
@pytest.mark.parametrize("name", WRONG)
def test_wrong_ones_are_broken_and_named(name: str, model) -> None:  # type: ignore[no-untyped-def]
    report = compare(model(native()), model(WRONG[name]))
    assert not report.held
    assert report.sites[0].status is Status.FAIL, report.sites
    assert report.sites[0].metrics is not None
    assert report.sites[0].metrics.error_over_bound > 1


@pytest.mark.parametrize("model", [alone, network])
def test_one_pass_is_unstable_which_is_broken(model) -> None:  # type: ignore[no-untyped-def]
    report = compare(model(native()), model(ONE_PASS))
    assert {v.status for v in report.sites} == {Status.UNSTABLE}
    assert report.verdict == "broken"


def test_other_names_are_paired_by_position() -> None:
    assert compare(alone(native()), alone(RIGHT["instance norm"], names=("in", "out"))).held
    assert not compare(alone(native()), alone(WRONG["unbiased variance"], names=("in", "out"))).held


def test_other_inner_names_are_paired_by_order() -> None:
    report = compare(network(native()), network(RIGHT["instance norm"], prefix="other_"))
    assert report.held
    assert not report.unpaired
    assert not compare(network(native()), network(WRONG["epsilon 1e-3"], prefix="other_")).held


def test_an_unrecognisable_site_without_names_is_left_to_the_outputs() -> None:
    report = compare(network(native()), network(WRONG["permuted groups"], prefix="other_"))
    assert not report.held


@pytest.mark.parametrize("activation", ["Relu", "Identity"])
def test_channels_permuted_around_a_recognised_group_norm_are_broken_by_probes_alone(activation: str) -> None:
    """With one scale and one bias for all channels the GroupNorm in the middle is itself a right one."""
    even = native(scale=np.full_like(SCALE, 1.5), bias=np.full_like(BIAS, 0.25))

    def shuffled(g: Graph, x: str, y: str) -> None:
        order = np.arange(CHANNELS).reshape(-1, GROUPS).T.ravel()
        even(g, g.add("Gather", [x, g.constant(order)], axis=1), f"{y}_shuffled")
        g.add("Gather", [f"{y}_shuffled", g.constant(np.argsort(order))], y, axis=1)

    right, wrong = (network(spelling, activation=activation) for spelling in (even, shuffled))
    for model in (right, wrong):  # what an export says of them would pair them as they stand
        norms = [node for node in model.graph if node.op_type == "GroupNormalization"]
        for i, node in enumerate(norms):
            node.metadata_props["pkg.torch.onnx.name_scopes"] = f"['', 'norm{i}', 'group_norm']"
    assert compare(right, right, network=False).held
    report = compare(right, wrong, network=False)
    assert {v.status for v in report.sites} == {Status.FAIL}


def test_on_onnx_runtime_the_native_form_is_unstable() -> None:
    """ONNX Runtime has no CPU kernel for it and expands the one-pass function body (its issue 24538)."""
    report = compare(network(native()), network(native()), runtimes=("onnxruntime",))
    assert {v.status for v in report.sites} == {Status.UNSTABLE}
    assert compare(network(native()), network(RIGHT["instance norm"]), runtimes=("onnxruntime",)).held


def test_override_decides_and_says_so() -> None:
    a, b = network(native()), network(WRONG["epsilon 1e-6"])
    assert not compare(a, b).held
    report = compare(a, b, atol=10.0)
    assert report.held
    assert "as asked" in report.sites[0].reason


def test_what_only_the_users_tolerance_refuses_is_not_called_another_function() -> None:
    a = network(native())
    [right, wrong] = (compare(a, network(b), atol=1e-9).sites[0] for b in (RIGHT["layer norm"], WRONG["epsilon 1e-6"]))
    assert (right.status, wrong.status) == (Status.FAIL, Status.FAIL)
    assert "inside the derived bound, which rounding needs on these inputs" in right.reason
    assert not right.looks_like
    assert "does not compute this GroupNorm" in wrong.reason
    assert wrong.looks_like


def test_different_inputs_are_an_input_error() -> None:
    with pytest.raises(InputError, match="input 'x'"):
        compare(alone(native()), network(native()))
    with pytest.raises(InputError, match="input 'x'"):
        compare(alone(native()), alone(native(), shape=("N", 8, 5, 6)))


def test_absent_runtime_is_notrun_and_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    report = compare(alone(native()), alone(native()), runtimes=("tensorrt",))
    assert report.runtimes[0].status is Status.NOTRUN
    assert not report.held
    with pytest.raises(InputError, match="unknown runtime"):
        compare(alone(native()), alone(native()), runtimes=("tensorflow",))


def test_torch_modules_are_judged_by_module_path() -> None:
    import torch

    from gn_deploy.runtimes.torch_eager import TorchModel
    from gn_deploy.sites import find

    module = torch.nn.Sequential(torch.nn.GroupNorm(spellings.GROUPS, spellings.CHANNELS), torch.nn.ReLU())
    module.eval()
    module[0].weight.data = torch.from_numpy(spellings.SCALE.copy())
    module[0].bias.data = torch.from_numpy(spellings.BIAS.copy())
    program = torch.onnx.export(module, (torch.ones(2, 8, 6, 6),), dynamo=True, opset_version=21, verbose=False)
    model: ir.Model = normalize(program.model)
    names = tuple(str(v.name) for v in model.graph.inputs), tuple(str(v.name) for v in model.graph.outputs)

    def check():  # type: ignore[no-untyped-def]
        from gn_deploy.parity.cases import input_specs, model_cases

        subjects = [Subject("torch", "torch", TorchModel(module, *names)), Subject("np", "onnx-reference", model)]
        return judge(model, find(model).sites, subjects, model_cases(input_specs(model)))

    assert {v.runtime: v.status for v in check().sites} == {"torch": Status.PASS, "np": Status.PASS}
    module[0].eps = 1e-3
    assert {v.runtime: v.status for v in check().sites}["torch"] is Status.FAIL


@pytest.mark.parametrize("form", ["native", "instance_norm", "primitives"])
def test_float64_is_judged_with_the_epsilon_that_a_file_can_hold(form: str) -> None:
    """An attribute is float32, so epsilon is 1e-5 but for 2.5e-13; a tenth more is another epsilon."""
    spec = GroupNormSpec(2, 4, 1e-5, 4, "float64", "float64")
    model, wrong = (write(form, s, *affine(s, "both"), (2, 4, 3, 5), 21) for s in (spec, replace(spec, epsilon=1.1e-5)))
    assert compare(model, model).held
    assert [v.status for v in compare(model, wrong).sites] == [Status.FAIL]
