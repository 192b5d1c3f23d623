"""The table of faults: name -> fault, in the order in which reports list them."""

from collections.abc import Sequence

from gn_deploy.decision import Decision, Rejected
from gn_deploy.faults.around import AROUND
from gn_deploy.faults.base import Fault
from gn_deploy.faults.elements import ELEMENTS
from gn_deploy.faults.grouping import GROUPING
from gn_deploy.faults.parameters import PARAMETERS
from gn_deploy.faults.precision import PRECISION
from gn_deploy.faults.statistics import STATISTICS
from gn_deploy.spec import GroupNormSpec

FAULTS: dict[str, Fault] = {
    fault.name: fault for fault in (*STATISTICS, *GROUPING, *PARAMETERS, *ELEMENTS, *PRECISION, *AROUND)
}


def applies(fault: Fault, spec: GroupNormSpec, shape: Sequence[int]) -> Decision:
    """Whether ``fault`` can act on a GroupNorm with an x of ``shape``, else why not.

    Accepted does not say that it shows: on a constant input wrong groups may give the right answer.
    """
    if len(shape) < 2 or shape[spec.channel_axis] != spec.num_channels:
        return Rejected(f"x of shape {tuple(shape)} does not have {spec.num_channels} channels")
    return fault.needs(spec, shape)
