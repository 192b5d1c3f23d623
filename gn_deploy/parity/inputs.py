"""How the inputs of two models correspond, and one set of cases in the names and dtypes of each."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gn_deploy.errors import InputError
from gn_deploy.parity.cases import Case, InputSpec, input_specs
from gn_deploy.spec import FLOAT_DTYPES

if TYPE_CHECKING:
    import onnx_ir as ir


def match_inputs(reference: "ir.Model", candidate: Sequence[InputSpec]) -> dict[str, InputSpec]:
    """Reference input name -> the candidate's input: by name when all names agree, else by position.

    Raises InputError when count, kind (float, integer, boolean), rank or a static size differs.
    """
    wanted = input_specs(reference)
    if len(wanted) != len(candidate):
        raise InputError(
            f"the models take {len(wanted)} and {len(candidate)} inputs",
            f"{', '.join(s.name for s in wanted)} against {', '.join(s.name for s in candidate)}",
        )
    named = {s.name: s for s in candidate}
    same = named.keys() == {s.name for s in wanted}
    found = {s.name: named[s.name] if same else candidate[i] for i, s in enumerate(wanted)}
    for spec in wanted:
        other = found[spec.name]
        kinds = [np.dtype(s.dtype).kind if s.dtype not in FLOAT_DTYPES else "f" for s in (spec, other)]
        sizes = zip(spec.shape, other.shape, strict=False)
        clash = any(isinstance(x, int) and isinstance(y, int) and x != y for x, y in sizes)
        if kinds[0] != kinds[1] or len(spec.shape) != len(other.shape) or clash:
            raise InputError(
                f"input '{spec.name}' is {spec.dtype}{list(spec.shape)} in one model, "
                f"'{other.name}' is {other.dtype}{list(other.shape)} in the other",
                "the models must take the same inputs",
            )
    return found


def fed_to(reference: "ir.Model", model: Any, cases: Sequence[Case]) -> list[Case]:
    """The cases under the subject's own input names and in its dtypes, inputs in the order of the reference's."""
    import onnx_ir as ir

    specs = input_specs(reference)
    match = {s.name: s for s in specs}
    if isinstance(model, ir.Model):
        match = match_inputs(reference, input_specs(model))
    elif not isinstance(model, Path) and match.keys() != set(model.input_names):
        match = {s.name: replace(s, name=own) for s, own in zip(specs, model.input_names, strict=True)}
    fed = []
    for case in cases:
        if missing := [s.name for s in specs if s.name not in case.feeds]:
            raise InputError(f"case '{case.name}' has no array for input '{missing[0]}'")
        fed.append(replace(case, feeds={own.name: case.feeds[n].astype(own.dtype) for n, own in match.items()}))
    return fed
