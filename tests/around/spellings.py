"""Pointwise functions as exporters and people write them, in ONNX's text syntax: z of y."""

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from gn_deploy.spec import Activation
from tests.runtimes.small_models import ELEMENT

CONSTANTS = {
    "zero": 0.0,
    "half": 0.5,
    "one": 1.0,
    "two": 2.0,
    "three": 3.0,
    "six": 6.0,
    "twenty": 20.0,
    "sixth": 1 / 6,
    "root": math.sqrt(2),
    "inverse": math.sqrt(0.5),
    "minus_inverse": -math.sqrt(0.5),
    "slope": math.sqrt(2 / math.pi),
    "double_slope": math.sqrt(8 / math.pi),
    "cubic": 0.044715,
    "quick": 1.702,
    "leak": 0.01,
    "nearly_one": 0.99,
    "bert": 1.41421,
    "minus_three": -3.0,
}
_TANH = "c = Mul(y, cubic) q = Mul(y, y) p = Mul(c, q) i = Add(p, y) s = Mul(slope, i) t = Tanh(s) "
_INNER = "p = Pow(y, three) c = Mul(cubic, p) i = Add(y, c) s = Mul(i, slope) t = Tanh(s) "

RIGHT = {
    "Relu": (Activation.RELU, "z = Relu(y)"),
    "Max": (Activation.RELU, "z = Max(zero, y)"),
    "Clip": (Activation.RELU, "z = Clip(y, zero)"),
    "Sigmoid, Mul": (Activation.SILU, "g = Sigmoid(y) z = Mul(y, g)"),
    "Mul of Sigmoid": (Activation.SILU, "g = Sigmoid(y) z = Mul(g, y)"),
    "two Identities": (Activation.SILU, "a = Identity(y) g = Sigmoid(a) b = Identity(y) z = Mul(g, b)"),
    "over 1 + Exp": (Activation.SILU, "m = Neg(y) e = Exp(m) d = Add(e, one) z = Div(y, d)"),
    "QuickGelu of ONNX Runtime": (Activation.SILU, "z = com.microsoft.QuickGelu<alpha = 1.0>(y)"),
    "HardSwish": (Activation.HARDSWISH, "z = HardSwish(y)"),
    "TorchScript 13 hardswish": (Activation.HARDSWISH, "g = HardSigmoid<alpha = 0.1666666716337204>(y) z = Mul(y, g)"),
    "relu6": (Activation.HARDSWISH, "a = Add(three, y) c = Clip(a, zero, six) m = Mul(c, y) z = Div(m, six)"),
    "gate over 6": (Activation.HARDSWISH, "a = Add(y, three) c = Clip(a, zero, six) g = Div(c, six) z = Mul(y, g)"),
    "gate by 1/6": (Activation.HARDSWISH, "a = Add(y, three) c = Clip(a, zero, six) g = Mul(sixth, c) z = Mul(g, y)"),
    "Min of Relu": (
        Activation.HARDSWISH,
        "a = Add(y, three) r = Relu(a) c = Min(r, six) m = Mul(y, c) z = Mul(m, sixth)",
    ),
    "Min of Max": (
        Activation.HARDSWISH,
        "a = Sub(y, minus_three) r = Max(a, zero) c = Min(six, r) v = Div(y, six) z = Mul(v, c)",
    ),
    "TorchScript gelu": (Activation.GELU, "t = Div(y, root) e = Erf(t) a = Add(e, one) m = Mul(y, a) z = Mul(m, half)"),
    "dynamo 18 gelu": (Activation.GELU, "t = Div(y, root) e = Erf(t) a = Add(e, one) h = Mul(half, a) z = Mul(y, h)"),
    "Keras gelu": (Activation.GELU, "t = Mul(y, inverse) e = Erf(t) a = Add(one, e) h = Mul(half, y) z = Mul(h, a)"),
    "half of both": (Activation.GELU, "t = Mul(y, inverse) e = Erf(t) h = Mul(e, half) a = Add(h, half) z = Mul(a, y)"),
    "over 2": (Activation.GELU, "t = Div(y, root) e = Erf(t) a = Add(e, one) m = Mul(y, a) z = Div(m, two)"),
    "JAX's erfc": (
        Activation.GELU,
        "t = Mul(y, minus_inverse) e = Erf(t) a = Sub(one, e) h = Mul(y, half) z = Mul(h, a)",
    ),
    "Gelu of ONNX Runtime": (Activation.GELU, "z = com.microsoft.Gelu(y)"),
    "GPT-2": (Activation.GELU_TANH, "h = Mul(y, half) " + _INNER + "a = Add(t, one) z = Mul(h, a)"),
    "dynamo 18 tanh gelu": (Activation.GELU_TANH, _INNER + "a = Add(t, one) h = Mul(half, a) z = Mul(y, h)"),
    "cube by Mul": (Activation.GELU_TANH, _TANH + "a = Add(one, t) m = Mul(y, a) z = Mul(half, m)"),
    "factored": (
        Activation.GELU_TANH,
        "q = Mul(y, y) c = Mul(cubic, q) d = Add(c, one) i = Mul(y, d) s = Mul(i, slope) t = Tanh(s) "
        "a = Add(t, one) h = Mul(a, half) z = Mul(h, y)",
    ),
    "by Sigmoid": (
        Activation.GELU_TANH,
        "p = Pow(y, three) c = Mul(cubic, p) i = Add(y, c) s = Mul(double_slope, i) g = Sigmoid(s) z = Mul(g, y)",
    ),
    "FastGelu of ONNX Runtime": (Activation.GELU_TANH, "z = com.microsoft.FastGelu(y)"),
    "Softplus, Tanh": (Activation.MISH, "s = Softplus(y) t = Tanh(s) z = Mul(y, t)"),
    "Log of 1 + Exp": (Activation.MISH, "e = Exp(y) a = Add(one, e) s = Log(a) t = Tanh(s) z = Mul(t, y)"),
    "dynamo softplus": (
        Activation.MISH,
        "s = Softplus(y) b = Greater(y, twenty) w = Where(b, y, s) t = Tanh(w) z = Mul(y, t)",
    ),
    "Mish": (Activation.MISH, "z = Mish(y)"),
    "Gelu": (Activation.GELU, "z = Gelu(y)"),
    "Gelu tanh": (Activation.GELU_TANH, 'z = Gelu<approximate = "tanh">(y)'),
}

WRONG = {
    "LeakyRelu": "z = LeakyRelu(y)",
    "leaky by Max": "l = Mul(y, leak) z = Max(y, l)",
    "Elu": "z = Elu(y)",
    "Softplus alone": "z = Softplus(y)",
    "Sigmoid alone": "z = Sigmoid(y)",
    "QuickGELU": "s = Mul(y, quick) g = Sigmoid(s) z = Mul(y, g)",
    "QuickGelu of ONNX Runtime": "z = com.microsoft.QuickGelu(y)",
    "nearly SiLU": "s = Mul(y, nearly_one) g = Sigmoid(s) z = Mul(y, g)",
    "negative SiLU": "m = Neg(y) g = Sigmoid(m) z = Mul(y, g)",
    "relu6 alone": "z = Clip(y, zero, six)",
    "Clip from 0.01": "z = Clip(y, leak)",
    "HardSigmoid of ONNX's default slope": "g = HardSigmoid(y) z = Mul(y, g)",
    "hardswish up to 3": "a = Add(y, three) c = Clip(a, zero, three) m = Mul(c, y) z = Div(m, six)",
    "hardswish, not divided": "a = Add(y, three) c = Clip(a, zero, six) z = Mul(c, y)",
    "erf without root": "e = Erf(y) a = Add(e, one) m = Mul(y, a) z = Mul(m, half)",
    "erf minus one": "t = Div(y, root) e = Erf(t) a = Sub(e, one) m = Mul(y, a) z = Mul(m, half)",
    "gelu, not halved": "t = Div(y, root) e = Erf(t) a = Add(e, one) z = Mul(y, a)",
    "square for cube": _INNER.replace("three", "two") + "a = Add(t, one) m = Mul(y, a) z = Mul(m, half)",
    "tanh without mish": "t = Tanh(y) z = Mul(y, t)",
    "a gate of something else": "o = Exp(y) g = Sigmoid(o) z = Mul(y, g)",
    "softplus from 3": "s = Softplus(y) b = Greater(y, three) w = Where(b, y, s) t = Tanh(w) z = Mul(y, t)",
}


def model(
    body: str,
    dtype: str = "float32",
    opset: int = 20,
    rest: str = "",
    inputs: Sequence[str] = ("y", "other"),
    shape: Sequence[int | str] = ("N", 4, 3),
    weights: Mapping[str, np.ndarray] | None = None,
) -> ir.Model:
    """``z`` of the graph input ``y``; ``rest`` stands after the body, and what it calls out... is an output too."""
    kind = {"float32": "float", "float64": "double"}.get(dtype, dtype) + f"[{','.join(map(str, shape))}]"
    outputs = ["z", *re.findall(r"\bout\w*(?= =)", rest)]
    signature = [", ".join(f"{kind} {name}" for name in names) for names in (inputs, outputs)]
    proto = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": {opset}, "com.microsoft": 1]> '
        f"g ({signature[0]}) => ({signature[1]}) {{ {body} {rest} }}"
    )
    numbers = {name: np.asarray(number).astype(ELEMENT[dtype][1]) for name, number in CONSTANTS.items()}
    for name, array in {**numbers, **(weights or {})}.items():
        if any(name in node.input for node in proto.graph.node):
            proto.graph.initializer.append(numpy_helper.from_array(array, name))
    return ir.from_proto(proto)
