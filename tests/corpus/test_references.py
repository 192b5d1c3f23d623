"""The answers that were recorded beside the frameworks, file by file: by the files themselves and by them lowered."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gn_deploy.parity.cases import Case, input_specs
from gn_deploy.parity.status import Status
from gn_deploy.reference import group_norm
from tests.corpus.exemplars import EXEMPLARS, GOLDEN, LOOK_ALIKES, Exemplar, Trial
from tests.corpus.test_lowered import FORMS, judge_all, statuses

FOLDER = Path(os.environ.get("GN_DEPLOY_CORPUS", GOLDEN.parents[3] / "shared" / "corpus"))
"""Inputs and answers, 24 MB: NAME.npz with ``case/in0`` ... and ``case/out0``, for every golden file."""
pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(),
    reason="no folder of recorded answers: GN_DEPLOY_CORPUS names it, they are not in the repository",
)
LOST_EPSILON = [e for e in EXEMPLARS if e.file.startswith("paddle")]
FAITHFUL = [e for e in [*EXEMPLARS, *LOOK_ALIKES] if e not in LOST_EPSILON]


def recorded(exemplar: Exemplar) -> list[Trial]:
    """One trial per case that was recorded."""
    held = np.load(FOLDER / exemplar.file.replace(".onnx", ".npz"))
    bf16 = exemplar.truth["dtype"] == "bfloat16"  # NumPy files have no such type: x is float32, and not rounded
    specs = input_specs(exemplar.model)
    found = []
    for name in dict.fromkeys(key.partition("/")[0] for key in held):
        feeds = {s.name: held[f"{name}/in{i}"].astype("float32" if bf16 else s.dtype) for i, s in enumerate(specs)}
        known_in = "float32" if exemplar.truth["producer"] == "onnx-helper" else "float64"
        case = Case(name, feeds, "user", True)
        found.append(Trial(exemplar, case, held[f"{name}/out0"], known_in, unrounded=bf16))
    return found


def test_files_compute_what_was_recorded() -> None:
    broken = []
    for exemplar in FAITHFUL:
        seen = statuses(exemplar.model, "onnx-reference", recorded(exemplar))
        assert seen
        broken += [(exemplar.file, case, s) for case, s in seen.items() if s is not Status.PASS]
    assert {s for _, _, s in broken} <= {Status.UNSTABLE}, broken  # files of one pass are what they are


def test_paddles_files_do_not_compute_what_paddle_does() -> None:
    """The converter lost epsilon, and what it wrote is what is found."""
    for exemplar in LOST_EPSILON:
        assert exemplar.site.spec.epsilon < 1e-20
        (trial,) = recorded(exemplar)
        (x,) = trial.case.feeds.values()
        parameters = [None if p is None else p.array for p in (exemplar.site.scale, exemplar.site.bias)]
        errors = [
            np.abs(group_norm(x, replace(exemplar.spec, epsilon=epsilon), *parameters) - trial.answer).max()
            for epsilon in (exemplar.truth["eps"], exemplar.site.spec.epsilon)
        ]
        assert errors[0] < 1e-14 < 1e-6 < errors[1]  # float64, and 1e-5 added to a variance about 1


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_lowered_files_compute_what_was_recorded(form: str) -> None:
    wrote, broken = judge_all(form, [(e, recorded(e)) for e in EXEMPLARS if e not in LOST_EPSILON])
    assert not broken
    assert wrote > 45
