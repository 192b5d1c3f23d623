"""Each mistake that is seeded into the kernels is seen by the cases that are there for it."""

import pytest

from tests.plugins.mutations import BASELINE, MUTATIONS, NCHW_F32, Instances, Mutation, built, findings, mutated

SEEN_ELSEWHERE = {"slots are left as they are", "a warp reads its table of channels while it is filled"}
"""Each much like another one: they are compiled in the slow run."""


def _seeded() -> list[object]:
    slow = [m for m in MUTATIONS if m.of == NCHW_F32 or m.name in SEEN_ELSEWHERE]
    return [pytest.param(m, marks=[pytest.mark.slow] if m in slow else [], id=m.name) for m in MUTATIONS]


@pytest.mark.parametrize(
    "of", [pytest.param(of, marks=[pytest.mark.slow] if of == NCHW_F32 else [], id=of.source) for of in BASELINE]
)
def test_without_a_mistake_nothing_is_seen(of: Instances) -> None:
    on = built(of)
    cases = {*BASELINE[of], *(mutation.case for mutation in MUTATIONS if mutation.of == of)}
    for case in sorted(cases, key=str):
        assert findings(on, case) == "", repr(case)


@pytest.mark.parametrize("mutation", _seeded())
def test_a_mistake_is_seen(mutation: Mutation) -> None:
    found = findings(built(mutation.of, mutation.changes), mutation.case)
    assert found, "nobody has seen it"
    assert mutation.told in found


def test_a_change_that_does_not_apply_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 times"):
        mutated((("statistics.h", "this is not there", ""),))
