"""Writes the capability tables of README.md from the forms and targets themselves; --check only compares."""

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from gn_deploy.forms import FORMS
from gn_deploy.forms.base import Form, ReadOnly
from gn_deploy.spec import FLOAT_DTYPES, GroupNormSpec
from gn_deploy.targets import RUNTIMES, Target

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- capabilities -->", "<!-- end of capabilities -->"
OPSETS = range(7, 26)  # the oldest with today's broadcasting to the newest that onnx 1.23 knows
SPEC = GroupNormSpec(8, 32, rank=4)
EXPORTED = 20  # the opset torch 2.13 exports by default
SITES = {
    "num_groups > 1": SPEC,
    "num_groups = 1": GroupNormSpec(1, 32, rank=4),
    "rank 2": replace(SPEC, rank=2),
    "bfloat16": replace(SPEC, dtype="bfloat16"),
    "residual, scale and shift, GELU, channels last": replace(SPEC, residual=True),
}


def tables() -> str:
    forms = [form for form in map(FORMS.require, FORMS.names()) if not isinstance(form, ReadOnly)]
    header = ["form (read and written)", *FLOAT_DTYPES]
    specs = [replace(SPEC, dtype=d, stash_dtype="float64" if d == "float64" else "float32") for d in FLOAT_DTYPES]
    rows = [[f"`{form.name}`", *(opsets(form, spec) for spec in specs)] for form in forms]
    targets = [*RUNTIMES[:5], "tensorrt@10.8", "tensorrt+auto", "tensorrt+plugin", *RUNTIMES[5:]]
    chosen = [[f"`{name}`", *(written(Target.parse(name), spec) for spec in SITES.values())] for name in targets]
    return "\n\n".join(
        [
            "ONNX opsets in which a form can hold a GroupNorm, by element type:",
            markdown([header, *rows]),
            "What `lower` writes where every other node lets the opset be raised as far as a form needs:",
            markdown([["target", *SITES], *chosen]),
        ]
    )


def opsets(form: Form, spec: GroupNormSpec) -> str:
    legal = [o for o in OPSETS if form.legal(spec, o)]
    if not legal:
        return "-"
    assert all(b == a + 1 for a, b in pairwise(legal)), "a form is legal in one range of opsets"
    return f"{legal[0]}+" if legal[-1] == OPSETS[-1] else f"{legal[0]} to {legal[-1]}"


def written(target: Target, spec: GroupNormSpec) -> str:
    forms = [FORMS.require(name) for name in target.preference(spec)]
    raised = [max(EXPORTED, f.min_opset(spec)) for f in forms]
    fit = (f.name for f, o in zip(forms, raised, strict=True) if target.takes(f.name, spec) and f.legal(spec, o))
    return f"`{next(fit, 'left as it is')}`"


def markdown(rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], f"|{'---|' * len(rows[0])}", *lines[1:]])


def main(arguments: list[str]) -> int:
    text = README.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    wanted = f"{before}{BEGIN}\n{tables()}\n{END}{after}"
    if "--check" in arguments:
        return int(text != wanted)
    README.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
