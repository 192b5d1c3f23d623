"""Test cases that others wrote, through every form and every runtime here; about four minutes on two cores."""

from collections import Counter
from collections.abc import Sequence

from gn_deploy.parity.status import Status
from scripts.figures import versions
from scripts.pages import table
from tests.parity.others.peers import DTYPES, Other, module_info, node_tests, op_info
from tests.parity.others.rounds import FORMED, Check, as_given, in_torch, known, rounds


def section() -> str:
    nodes, others = node_tests()
    left_out: list[Other] = list(others)
    rows = [_row("ONNX node tests", "float32", len(nodes), [*rounds(nodes), *as_given(nodes), *in_torch(nodes)])]
    for dtype in DTYPES:
        samples, more = op_info(dtype)
        left_out += more
        for source, peers in (("torch OpInfo", samples), ("torch ModuleInfo", module_info(dtype))):
            rows.append(_row(source, dtype, len(peers), [*rounds(peers), *in_torch(peers)]))
    why = Counter(other.why for other in left_out)
    told = "\n".join(f"- {count}: {reason}" for reason, count in why.most_common())
    head = (
        "cases",
        "type",
        "count",
        "checks",
        "pass",
        "unstable",
        "lowprec",
        "no kernel",
        "anything else",
        "worst pass",
    )
    return "\n".join(
        [
            f"{len(FORMED) - 2} forms and the two bodies of the specification:",
            "",
            table([head, *rows]),
            "",
            f"Left out, {len(left_out)}:",
            "",
            told,
            "",
            versions("onnx", "onnxruntime", "openvino", "torch"),
        ]
    )


def _row(source: str, dtype: str, count: int, checks: Sequence[Check]) -> tuple[object, ...]:
    expected = Counter(c.status for c in checks if c.status is Status.PASS or known(c))
    each = [expected[s] for s in (Status.PASS, Status.UNSTABLE, Status.LOWPREC, Status.NOTRUN)]
    worst = max(c.over for c in checks if c.status is Status.PASS)
    return (source, dtype, count, len(checks), *each, len(checks) - sum(each), f"{worst:.1f}")
