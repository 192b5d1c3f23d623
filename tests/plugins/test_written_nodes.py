"""Nodes as gn_deploy writes them, answered by the plugin as TensorRT would; the rest of the file by onnx.reference."""

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from gn_deploy.plugin.node import DOMAIN, OPS
from tests.forms.test_plugin import ALL, Case
from tests.plugins.adapter import Host
from tests.plugins.engine import execute
from tests.plugins.layers import NUMPY
from tests.plugins.vtable import Field, Type, field, tensor

TYPES = {dtype: kind for kind, dtype in NUMPY.items()}
OUTPUT_TYPES = {"int8": Type.INT8, "float8e4m3fn": Type.FP8}


def fields(node: onnx.NodeProto, known: set[str]) -> list[Field]:
    """As TensorRT's ONNX parser passes them: those the creator names, numbers in 32 bits, texts ended by a zero."""
    values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute if a.name in known}
    return [field(name, v.decode() if isinstance(v, bytes) else v) for name, v in values.items()]


def answered_by(host: Host) -> list[type[OpRun]]:
    """The plugin's nodes for onnx.reference."""

    def run(self: OpRun, *inputs: Any, **_: Any) -> tuple[Any, ...]:
        node = self.onnx_node
        given = fields(node, set(host.creators[node.op_type].fields()))
        x = TYPES[inputs[0].dtype]
        written = next(a.s.decode() for a in node.attribute if a.name == "output_type")
        ins = [tensor(array.shape, TYPES[array.dtype]) for array in inputs]
        outs = [tensor(inputs[0].shape, kind) for kind in (OUTPUT_TYPES.get(written, x), x)]
        found, _ = execute(host, node.op_type, given, ins, outs[: len(node.output)], inputs)
        return tuple(found)

    return [type(op, (OpRun,), {"op_domain": DOMAIN, "_run": run}) for op in OPS]


@pytest.mark.parametrize("case", ALL[::3], ids=str)
def test_a_node_that_was_written_is_a_layer_that_computes_the_same(case: Case, emulated: Host) -> None:
    proto = ir.to_proto(case.model())
    del proto.functions[:]  # nothing but the plugin can answer
    opened = ReferenceEvaluator(proto, new_ops=answered_by(emulated))
    feeds = case.feeds()
    names = [value.name for value in proto.graph.output]
    found = dict(zip(names, opened.run(None, feeds), strict=True))
    case.judge({name: np.asarray(array) for name, array in found.items()}, feeds)
