"""Whether a model may declare another opset: by rules, and by what the ONNX node tests compute at both opsets."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from gn_deploy.passes.opset import change_opset, may_change

RANDOM = {"Bernoulli", "RandomNormalLike", "RandomUniformLike"}


def model(text: str, opset: int, functions: str = "") -> ir.Model:
    imports = f'"": {opset}' + (', "my": 1' if functions else "")
    head = f"<ir_version: 10, opset_import: [{imports}]> agraph"
    return ir.from_proto(onnx.parser.parse_model(f"{head} {text}\n{functions}"))


def lowered(text: str, opset: int, to: int = 20, functions: str = "") -> str:
    """Why it may not be lowered; "" when it may."""
    decision = may_change(model(text, opset, functions), to, frozenset())
    return "" if decision else decision.reason


@pytest.mark.parametrize(
    ("text", "opset", "reason"),
    [
        ("(float[2,3] x) => (float[2,3] y) { y = Softmax(x) }", 25, ""),
        ("(float[1,3,4,4] x, float[3,3,1,1] w) => (float[1,3,4,4] y) { y = Conv(x, w) }", 22, ""),
        (
            "(bfloat16[1,3,4,4] x, bfloat16[3,3,1,1] w) => (bfloat16[1,3,4,4] y) { y = Conv(x, w) }",
            22,
            "Conv of opset 20 does not take tensor(bfloat16) as X ('y')",
        ),
        ("(float[4] x) => (float[4] y) { h = Cast<to = 10>(x) y = Cast<to = 1>(h) }", 24, ""),
        ("(float[4] x) => (int4[4] y) { y = Cast<to = 22>(x) }", 21, "does not take tensor(int4) as output"),
        ("(float[4] x) => (float8e4m3fnuz[4] y) { y = Cast<to = 18>(x) }", 24, "infinity became the largest"),
        ("(float[4] x) => (float8e4m3fnuz[4] y) { y = Cast<to = 18>(x) }", 23, ""),
        ("(float[4] x) => (float16[4] y) { y = Cast<to = 10, round_mode = \"up\">(x) }", 24, "no attribute round_mode"),
        ("(float[4] x) => (float[4] y) { y = Swish(x) }", 24, "Swish is not an op of opset 20"),
        (
            "(float[4] x, float s) => (uint8[4] y) { y = QuantizeLinear<output_dtype = 2>(x, s) }",
            21,
            "has no attribute output_dtype",
        ),
        ("(float16[4] x, float s) => (uint8[4] y) { y = QuantizeLinear(x, s) }", 23, "float16) with tensor(float)"),
        ("(float[4] x, float s, uint8 z) => (uint8[4] y) { y = QuantizeLinear(x, s, z) }", 23, ""),
        ("(float[1,1,5,5] x) => (float[1,1,2,2] y) { y = MaxPool<kernel_shape = [2,2], strides = [2,2]>(x) }", 22, ""),
        (
            "(float[1,1,5,5] x) => (float[1,1,3,3] y)"
            " { y = MaxPool<kernel_shape = [2,2], strides = [2,2], ceil_mode = 1>(x) }",
            22,
            "windows that start in the padding",
        ),
        (
            "(float[1,1,5,5] x) => (float[1,1,3,3] y)"
            " { y = MaxPool<kernel_shape = [2,2], strides = [2,2], ceil_mode = 1>(x) }",
            21,
            "",
        ),
        (
            "(float[2,8,4,4] x, float[8] w) => (float[2,8,4,4] y) { y = GroupNormalization<num_groups = 4>(x, w, w) }",
            21,
            "per group before 21",
        ),
    ],
)
def test_a_node_may_use_only_what_the_older_opset_has(text: str, opset: int, reason: str) -> None:
    told = lowered(text, opset)
    assert reason in told
    assert bool(reason) == bool(told)


@pytest.mark.parametrize(
    ("node", "opset", "kept", "new"),
    [
        ('y = Pad<mode = "%s">(x, p)', 19, "edge", "wrap"),
        ('y = Resize<coordinate_transformation_mode = "%s">(x, , s)', 19, "asymmetric", "half_pixel_symmetric"),
        ('y = ScatterElements<reduction = "%s">(x, i, x)', 18, "add", "max"),
        ('y = ScatterND<reduction = "%s">(x, i, x)', 18, "mul", "min"),
    ],
)
def test_a_word_is_as_old_as_the_opset_that_brought_it(node: str, opset: int, kept: str, new: str) -> None:
    for word, held in ((kept, True), (new, False)):
        text = f"(float[4,1] x, int64[4] p, float[2] s, int64[4,1] i) => (float[a,b] y) {{ {node % word} }}"
        model = ir.from_proto(onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": {opset}]> g {text}'))
        assert bool(may_change(model, opset - 1, frozenset())) is held, word


def test_nodes_of_branches_and_functions_are_asked() -> None:
    branch = """(float[4] x, bool c) => (float[4] y) { y = If (c) <
        then_branch = a () => (float[4] t) { t = Swish(x) }, else_branch = b () => (float[4] e) { e = Relu(x) }> }"""
    assert "Swish" in lowered(branch, 24)
    call = "(float[4] x) => (float[4] y) { y = my.f(x) }"
    body = '<domain: "my", opset_import: ["": 24]> f (i) => (o) { o = %s(i) }'
    assert "Swish" in lowered(call, 24, functions=body % "Swish")
    assert not lowered(call, 24, functions=body % "Relu")
    assert "imports opset 22 of its own" in lowered(call, 24, functions=(body % "Relu").replace("24", "22"))


@pytest.mark.parametrize(
    "node",
    [
        "ReduceMax<axes: ints = @a>(x)",
        "GridSample<mode: string = @a>(x, x)",
        "Cast<to: int = @a>(x)",
        "Pad<mode: string = @a>(x, i)",
        "AveragePool<kernel_shape = [2,2], ceil_mode: int = @a>(x)",
    ],
)
def test_what_the_caller_of_a_function_says_is_not_known(node: str) -> None:
    function = f'<domain: "my", opset_import: ["": 17]> F<a>(x, i) => (y) {{ y = {node} }}'
    text = "(float[4,4,2,2] x, int64[8] i) => (float[a,b,c,d] y) { y = my.F<a = 1>(x, i) }"
    assert not may_change(model(text, 17, function), 24, frozenset())


def test_opsets_out_of_reach_are_refused() -> None:
    relu = "(float[4] x) => (float[4] y) { y = Relu(x) }"
    assert "12 is too old to be lowered to" in lowered(relu, 21, 12)
    assert "newer than the installed onnx" in lowered(relu, onnx.defs.onnx_opset_version() + 1)


def test_functions_follow_and_the_ir_version_is_what_the_opset_needs() -> None:
    body = '<domain: "my", opset_import: ["": 18]> f (i) => (o) { o = Relu(i) }'
    made = model("(float[4] x) => (float[4] y) { y = my.f(x) }", 18, body)
    (function,) = made.functions.values()
    made.ir_version = 8
    change_opset(made, 20)
    assert (made.opset_imports[""], function.opset_imports[""], made.ir_version) == (20, 20, 9)
    change_opset(made, 21)
    assert made.ir_version == 10
    change_opset(made, 18)
    assert (made.opset_imports[""], function.opset_imports[""], made.ir_version) == (18, 18, 10)


@pytest.mark.slow
def test_every_node_test_of_onnx_that_may_be_lowered_computes_the_same_at_20() -> None:
    """An independent witness: the checker on all of them, the reference evaluator on three of each op."""
    from onnx.backend.test.case.node import collect_testcases

    with np.errstate(all="ignore"):
        cases = [(case, case.model) for case in collect_testcases(None) if case.model and is_newer(case.model)]
    ran: Counter[str] = Counter()
    accepted = refused = 0
    for case, was in cases:
        made = ir.from_proto(was)
        if not may_change(made, 20, frozenset()):
            refused += 1
            continue
        accepted += 1
        change_opset(made, 20)
        proto = ir.to_proto(made)
        onnx.checker.check_model(proto, full_check=True)
        op = was.graph.node[-1].op_type
        random = any(node.op_type in RANDOM for node in proto.graph.node)
        inputs, _ = (case.data_sets or [])[0]
        if ran[op] < 3 and not random and evaluated_alike(was, proto, inputs):
            ran[op] += 1
    assert accepted > 500
    assert refused > 300
    assert sum(ran.values()) > 100


def is_newer(proto: onnx.ModelProto) -> bool:
    return all(o.domain == "" and o.version > 20 for o in proto.opset_import)


def evaluated_alike(old: onnx.ModelProto, new: onnx.ModelProto, inputs: Sequence[Any]) -> bool:
    """Asserts that both give the same; False when the evaluator cannot run the case as it came."""
    feeds = {value.name: array for value, array in zip(old.graph.input, inputs, strict=False)}
    with np.errstate(all="ignore"):
        try:
            expected = ReferenceEvaluator(old).run(None, feeds)
        except Exception:  # whatever it likes: not our subject
            return False
        actual = ReferenceEvaluator(new).run(None, feeds)
    for a, b in zip(expected, actual, strict=True):
        np.testing.assert_equal(b, a, err_msg=old.graph.name)
    return True
