"""Whether a comparison would have noticed if a GroupNorm were wrong."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gn_deploy.api import Source, compare

if TYPE_CHECKING:
    from gn_deploy.parity.report import ParityReport


def would_notice(
    a: Source, b: Source, *, faults: Sequence[str] | None = None, seconds: float | None = None, **options: Any
) -> "ParityReport":
    """``compare``, and whether it would have noticed if a GroupNorm of ``b`` were wrong: ``noticed`` in its report.

    ``faults``, names of ``gn_deploy.faults.FAULTS`` (all by default), are seeded into copies of ``b``, one fault in one
    GroupNorm at a time, for ``seconds`` (600). Each copy is judged as ``b`` was, by the same ``options`` of
    ``api.compare`` and the first 16 inputs; ``mutation.rehearsal.Rehearsal`` has the rules. With ``redraw_affine`` they
    are tried on the models with other scales and biases. Raises InputError for a name that no fault has.
    """
    from gn_deploy.mutation.rehearsal import SECONDS, Rehearsal
    from gn_deploy.mutation.seeding import named

    return compare(a, b, after=Rehearsal(named(faults), SECONDS if seconds is None else seconds), **options)
