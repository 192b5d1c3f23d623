"""GroupNorm test cases that others wrote: ONNX backend node tests, torch's OpInfo and ModuleInfo."""

import itertools
import sys
import unittest
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from gn_deploy.runtimes.torch_eager import to_numpy
from gn_deploy.spec import GroupNormSpec

Array = NDArray[Any]
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}


@dataclass(frozen=True, slots=True, eq=False)
class Peer:
    """One case: what goes in, and what its author says must come out; None where the author computes that anew."""

    name: str
    spec: GroupNormSpec
    x: Array
    scale: Array | None
    bias: Array | None
    expected: Array | None = None
    model: onnx.ModelProto | None = None
    """The author's own model, x, scale and bias being its inputs."""

    @property
    def source(self) -> str:
        return self.name.split(":")[0]


@dataclass(frozen=True, slots=True, eq=False)
class Other:
    """A case that is no GroupNorm, or none that can be judged, and why."""

    name: str
    why: str
    model: onnx.ModelProto | None = None


def node_tests() -> tuple[list[Peer], list[Other]]:
    """ONNX's node tests of group, instance and layer normalization; ``_expanded`` ones hold the function's body.

    A LayerNormalization is a GroupNorm where it normalizes all axes but the first and its W and B are per channel.
    """
    from onnx.backend.test.case import node

    np.random.seed(0)  # they draw their data while they are imported
    for module in ("groupnormalization", "instance_normalization", "layernormalization"):
        import_module(f"onnx.backend.test.case.node.{module}")
    words = ("test_group_normalization", "test_instancenorm", "test_layer_normalization")
    cases = {case.name: case for case in node._NodeTestCases if case.name.startswith(words)}
    made = [_node_test(case, cases[name.partition("_expanded")[0]].model.graph.node[0]) for name, case in cases.items()]
    return [m for m in made if isinstance(m, Peer)], [m for m in made if isinstance(m, Other)]


def _node_test(case: Any, node: onnx.NodeProto) -> Peer | Other:
    """``node`` is what the case is about, also where the case holds its function's body."""
    name = f"ONNX node: {case.name.removeprefix('test_')}"
    ((inputs, (expected, *_)),) = case.data_sets
    x, scale, bias = (np.asarray(a) for a in inputs)
    told = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    groups = told.get("num_groups", x.shape[1])
    if node.op_type == "LayerNormalization":
        if told.get("axis", -1) % x.ndim != 1:
            return Other(name, "it does not normalize all axes but the first", case.model)
        if scale.shape != (x.shape[1],):
            return Other(name, "its scale and bias are per element, not per channel", case.model)
        groups = 1
    spec = GroupNormSpec(groups, x.shape[1], _decimal(told.get("epsilon", 1e-5)), rank=x.ndim, dtype=x.dtype.name)
    return Peer(name, spec, x, scale, bias, np.asarray(expected), case.model)


def op_info(dtype: str) -> tuple[list[Peer], list[Other]]:
    """torch's samples of group_norm, instance_norm and layer_norm, and the larger reference samples of group_norm.

    The loop over weight and bias present or None rebinds the keywords it adds to, and the older keys win: all four
    samples have both. What was meant is put back here, by position; once torch does it this changes nothing.
    """
    invocations = _of_torch("common_methods_invocations")
    torch.manual_seed(0)
    options = ("cpu", DTYPES[dtype], False)
    peers: list[Peer] = []
    others: list[Other] = []

    def add(name: str, groups: int, x: Any, weight: Any, bias: Any, eps: float) -> None:
        made = _sample(f"OpInfo: {name} {dtype}", groups, x, weight, bias, eps)
        (peers if isinstance(made, Peer) else others).append(made)  # type: ignore[arg-type]

    samples = list(invocations.reference_inputs_group_norm(None, *options))
    meant = itertools.cycle(itertools.product((True, False), (True, False)))
    for i, sample in enumerate(samples):
        weight, bias = sample.kwargs.get("weight"), sample.kwargs.get("bias")
        if "weight" in sample.kwargs:
            weight, bias = (p if kept else None for p, kept in zip((weight, bias), next(meant), strict=True))
        add(f"group_norm {i}", sample.args[0], sample.input, weight, bias, sample.kwargs.get("eps", 1e-5))
    for i, sample in enumerate(invocations.sample_inputs_instance_norm(None, *options)):
        weight, bias = sample.kwargs.get("weight"), sample.kwargs.get("bias")
        add(f"instance_norm {i}", sample.input.shape[1], sample.input, weight, bias, sample.kwargs.get("eps", 1e-5))
    for i, sample in enumerate(invocations.sample_inputs_layer_norm(None, *options)):
        name, x, (shape, *affine) = f"OpInfo: layer_norm {i} {dtype}", sample.input, sample.args
        if x.ndim < 2 or tuple(shape) != tuple(x.shape[1:]):
            others.append(Other(name, "it does not normalize all axes but the first"))
        elif len(shape) > 1 and affine:
            others.append(Other(name, "its scale and bias are per element, not per channel"))
        else:
            weight, bias = affine or (None, None)
            add(f"layer_norm {i}", 1, x, weight, bias, sample.kwargs.get("eps", 1e-5))
    return peers, others


def never_none(dtype: str = "float32") -> bool:
    """Whether torch's own group_norm samples still never leave weight or bias out where they name them."""
    samples = _of_torch("common_methods_invocations").sample_inputs_group_norm(None, "cpu", DTYPES[dtype], False)
    return all(None not in (s.kwargs["weight"], s.kwargs["bias"]) for s in samples if "weight" in s.kwargs)


def module_info(dtype: str) -> list[Peer]:
    """torch's ModuleInfo of nn.GroupNorm. Its modules have the weights they are born with, 1 and 0, which hide every
    fault of scale and bias: they are drawn anew."""
    torch.manual_seed(0)
    peers = []
    for sample in _of_torch("common_modules").module_inputs_torch_nn_GroupNorm(
        None, "cpu", DTYPES[dtype], False, False
    ):
        made = sample.constructor_input
        module = torch.nn.GroupNorm(*made.args, **made.kwargs).to(DTYPES[dtype])
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter)
        (x,) = sample.forward_input.args
        name = f"ModuleInfo: GroupNorm {sample.desc} {dtype}"
        peer = _sample(name, module.num_groups, x, module.weight, module.bias, module.eps)
        assert isinstance(peer, Peer), peer
        peers.append(peer)
    return peers


def _of_torch(name: str) -> Any:
    """A module of torch.testing. It imports expecttest for assertions of its own, which nobody here calls."""
    if "expecttest" not in sys.modules and find_spec("expecttest") is None:
        stand_in = ModuleType("expecttest")
        stand_in.TestCase = unittest.TestCase  # type: ignore[attr-defined]
        sys.modules["expecttest"] = stand_in
    return import_module(f"torch.testing._internal.{name}")


def _sample(name: str, groups: int, x: Any, weight: Any, bias: Any, eps: float) -> Peer | Other:
    if eps < 0:
        return Other(name, f"epsilon {eps} is below zero, which a GroupNorm does not have")
    array, scale, offset = (None if t is None else to_numpy(t) for t in (x, weight, bias))
    assert array is not None
    if not array.size:
        return Other(name, "it has no number")
    kind = array.dtype.name
    spec = GroupNormSpec(groups, array.shape[1], eps, array.ndim, kind, "float64" if kind == "float64" else "float32")
    return Peer(name, spec, array, scale, offset)


def _decimal(epsilon: float) -> float:
    """0.01, not 0.009999999776482582, which is the same float32."""
    return float(str(np.float32(epsilon)))
