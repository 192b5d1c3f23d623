"""Each mistake that is seeded into the kernels is seen by the cases that are there for it."""

import pytest

from tests.plugins.mutations import BASELINE, MUTATIONS, Instances, Mutation, built, findings, mutated


@pytest.mark.parametrize("of", BASELINE, ids=lambda of: of.source)
def test_without_a_mistake_nothing_is_seen(of: Instances) -> None:
    on = built(of)
    cases = {*BASELINE[of], *(mutation.case for mutation in MUTATIONS if mutation.of == of)}
    for case in sorted(cases, key=str):
        assert findings(on, case) == "", repr(case)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mistake_is_seen(mutation: Mutation) -> None:
    found = findings(built(mutation.of, mutation.changes), mutation.case)
    assert found, "nobody has seen it"
    assert mutation.told in found


def test_a_change_that_does_not_apply_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 times"):
        mutated((("statistics.h", "this is not there", ""),))
