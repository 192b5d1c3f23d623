"""The matcher: backtracking, operand order, identity of repeated pattern objects, predicates, reasons."""

import onnx
import onnx_ir as ir

from gn_deploy.decision import Accepted, Rejected
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.match import Any, Either, Match, Miss, Op, Scalar, Through, match


def output(body: str, inputs: str = "float[4] x, float[4] z") -> ir.Value:
    text = f'<ir_version: 10, opset_import: ["": 21]> agraph ({inputs}) => (float[4] y) {body}'
    return ir.from_proto(onnx.parser.parse_model(text)).graph.outputs[0]


X = Any()
SQUARE = Op("Mul", (X, X))


def test_one_pattern_object_is_one_value() -> None:
    assert match(SQUARE, output("{ y = Mul(x, x) }"), Facts(21))
    missed = match(SQUARE, output("{ y = Mul(x, z) }"), Facts(21))
    assert isinstance(missed, Miss)
    assert "not the same value" in missed.reason


def test_values_computed_twice_alike_are_one_value() -> None:
    assert match(SQUARE, output("{ a = Sigmoid(x) b = Sigmoid(x) y = Mul(a, b) }"), Facts(21))
    assert not match(SQUARE, output("{ a = Sigmoid(x) b = Sigmoid(z) y = Mul(a, b) }"), Facts(21))


def test_both_operand_orders_of_add_but_not_of_sub() -> None:
    for op, right in (("Add", True), ("Sub", False)):
        pattern = Op(op, (X, Op("Sigmoid", (X,))))
        assert match(pattern, output(f"{{ s = Sigmoid(x) y = {op}(x, s) }}"), Facts(21))
        assert bool(match(pattern, output(f"{{ s = Sigmoid(x) y = {op}(s, x) }}"), Facts(21))) is right


def test_backtracking_undoes_an_early_choice() -> None:
    """Add(Relu(x), Relu(z)) where the first Relu must be the one whose input is squared elsewhere."""
    a, b = Any(), Any()
    pattern = Op("Mul", (Op("Add", (Op("Relu", (a,)), Op("Relu", (b,)))), Op("Mul", (b, b))))
    found = match(pattern, output("{ p = Relu(x) q = Relu(z) s = Add(p, q) t = Mul(x, x) y = Mul(s, t) }"), Facts(21))
    assert isinstance(found, Match)
    assert (found[a].name, found[b].name) == ("z", "x")


def test_through_sees_past_any_number_of_casts_and_keeps_their_nodes() -> None:
    inner = Op("Sigmoid", (X,))
    pattern = Op("Relu", (Through("Cast Identity", inner),))
    found = match(pattern, output("{ s = Sigmoid(x) c = Cast<to = 10>(s) d = Cast<to = 1>(c) y = Relu(d) }"), Facts(21))
    assert isinstance(found, Match)
    assert [n.op_type for n in found.nodes] == ["Relu", "Cast", "Cast", "Sigmoid"]
    assert match(pattern, output("{ s = Sigmoid(x) y = Relu(s) }"), Facts(21))


def test_predicates_run_inside_either() -> None:
    never = Op("Relu", (X,), where=lambda _node, _facts: Rejected("this Relu is not welcome"))
    always = Op("Relu", (X,), where=lambda _node, _facts: Accepted())
    missed = match(Either((never,)), output("{ y = Relu(x) }"), Facts(21))
    assert isinstance(missed, Miss)
    assert missed.reason == "this Relu is not welcome"
    assert match(Either((never, always)), output("{ y = Relu(x) }"), Facts(21))


def test_scalars_are_constants_of_one_element() -> None:
    pattern = Op("Pow", (X, Scalar(2.0)))
    assert match(pattern, output("<float two = {2}> { y = Pow(x, two) }"), Facts(21))
    missed = match(pattern, output("<float two = {3}> { y = Pow(x, two) }"), Facts(21))
    assert isinstance(missed, Miss)
    assert "is 3 where 2 was needed" in missed.reason
    assert not match(pattern, output("{ y = Pow(x, z) }"), Facts(21))


def test_the_deepest_attempt_gives_the_reason() -> None:
    pattern = Op("Add", (Op("Relu", (Op("Sigmoid", (X,)),)), X))
    missed = match(pattern, output("{ r = Relu(x) y = Add(r, x) }"), Facts(21))
    assert isinstance(missed, Miss)
    assert missed.progress == 2
    assert missed.reason == "'x' is a graph input or weight where Sigmoid was needed"


def test_nodes_of_other_domains_are_not_taken_for_ours() -> None:
    text = (
        '<ir_version: 10, opset_import: ["": 21, "other": 1]> g (float[4] x) => (float[4] y) { y = other.Relu(x) }'
    )
    value = ir.from_proto(onnx.parser.parse_model(text)).graph.outputs[0]
    assert not match(Op("Relu", (X,)), value, Facts(21))
