"""Faults of what stands around the normalization: activation and residual."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gn_deploy.decision import Accepted, Decision, Rejected
from gn_deploy.faults.base import Call, Fault, Kind
from gn_deploy.reference import F64, activate
from gn_deploy.spec import Activation, GroupNormSpec

MISTAKEN = {
    Activation.RELU: Activation.GELU,
    Activation.SILU: Activation.HARDSWISH,
    Activation.HARDSWISH: Activation.SILU,
    Activation.GELU: Activation.SILU,
    Activation.GELU_TANH: Activation.SILU,
    Activation.MISH: Activation.SILU,
}
"""Activation -> the one that is taken for it."""
_GELU = {Activation.GELU: Activation.GELU_TANH, Activation.GELU_TANH: Activation.GELU}


def _other(table: dict[Activation, Activation], call: Call) -> F64:
    return call.with_spec(activation=table[call.spec.activation]).right()


def _added_after(call: Call) -> F64:
    if call.residual is None:
        return call.right()
    y = replace(call, residual=None).with_spec(activation=Activation.NONE).right()
    return activate(y + np.asarray(call.residual, np.float64), call.spec.activation)


def _active(spec: GroupNormSpec, shape: Sequence[int]) -> Decision:
    return Accepted() if spec.activation is not Activation.NONE else Rejected("it has no activation")


def _gelu(spec: GroupNormSpec, shape: Sequence[int]) -> Decision:
    return Accepted() if spec.activation in _GELU else Rejected("its activation is not GELU")


def _residual(spec: GroupNormSpec, shape: Sequence[int]) -> Decision:
    return Accepted() if spec.residual else Rejected("it has no residual")


AROUND = (
    Fault("activation missing", Kind.ACTIVATION, "the activation is not applied",
          lambda call: call.with_spec(activation=Activation.NONE).right(), _active),
    Fault("another activation", Kind.ACTIVATION, "a similar activation is applied instead",
          lambda call: _other(MISTAKEN, call), _active),
    Fault("the other GELU", Kind.ACTIVATION, "GELU by tanh stands for GELU by erf, or the other way round",
          lambda call: _other(_GELU, call), _gelu),
    Fault("residual dropped", Kind.RESIDUAL, "the residual is not added",
          lambda call: replace(call, residual=None).right(), _residual),
    Fault("residual added after", Kind.RESIDUAL, "the residual is added after the normalization instead of before",
          _added_after, _residual),
)  # fmt: skip
