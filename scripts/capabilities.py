"""Writes the capability tables of README.md from the forms and targets themselves; --check only compares."""

import argparse
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # for scripts.pages

from gn_deploy.forms import FORMS  # noqa: E402
from gn_deploy.forms.base import Form, ReadOnly  # noqa: E402
from gn_deploy.spec import FLOAT_DTYPES, GroupNormSpec  # noqa: E402
from gn_deploy.targets import RUNTIMES, Target  # noqa: E402
from scripts import pages  # noqa: E402

README = ROOT / "README.md"
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
            pages.table([header, *rows]),
            "What `lower` writes where every other node lets the opset be raised as far as a form needs:",
            pages.table([["target", *SITES], *chosen]),
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


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="capabilities.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only compare: 1 when the page says otherwise")
    asked = parser.parse_args(arguments)
    same = pages.update(README, "capabilities", tables(), check=asked.check)
    return int(asked.check and not same)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
