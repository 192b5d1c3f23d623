"""Two reports on the same models under different parameters as one."""

import math
from dataclasses import replace
from typing import Any, TypeVar

from gn_deploy.parity.report import OutputVerdict, ParityReport, RuntimeVerdict, SiteVerdict

Verdict = TypeVar("Verdict", SiteVerdict, OutputVerdict)


def together(plain: ParityReport, other: ParityReport, word: str) -> ParityReport:
    """The worse of both for each site, output and runtime; cases of ``other`` are called "WORD case"."""
    sites = {(v.site, v.runtime): v for v in other.sites}
    outputs = {(v.output, v.runtime): v for v in other.outputs}
    runtimes = {v.runtime: v for v in other.runtimes}
    return replace(
        plain,
        sites=tuple(_site(v, sites.get((v.site, v.runtime)), word) for v in plain.sites),
        outputs=tuple(_worse(v, outputs.get((v.output, v.runtime)), word) for v in plain.outputs),
        runtimes=tuple(_runtime(v, runtimes.get(v.runtime), word) for v in plain.runtimes),
        notes=tuple(dict.fromkeys((*plain.notes, *other.notes))),
    )


def _site(a: SiteVerdict, b: SiteVerdict | None, word: str) -> SiteVerdict:
    if b is None:
        return a
    return replace(_worse(a, b, word), cases=a.cases | {f"{word} {case}": value for case, value in b.cases.items()})


def _worse(a: Verdict, b: Verdict | None, word: str) -> Verdict:
    if b is None or _gravity(b) <= _gravity(a):
        return a
    return replace(b, case=f"{word} {b.case}" if b.case else word)


def _runtime(a: RuntimeVerdict, b: RuntimeVerdict | None, word: str) -> RuntimeVerdict:
    if b is None or b.status.severity <= a.status.severity:
        return a
    return replace(a, status=b.status, reason=f"{word}: {b.reason}" if b.reason else a.reason)


def _gravity(verdict: Any) -> tuple[int, float]:
    size = verdict.metrics.error_over_bound if verdict.metrics else -math.inf
    return verdict.status.severity, size
