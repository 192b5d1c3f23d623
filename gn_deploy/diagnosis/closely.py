"""One located divergence looked at closely: the smallest model that shows it, the setting at fault, files of it."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from gn_deploy.diagnosis.blame import blame as find_blame
from gn_deploy.diagnosis.deployed import Deployed
from gn_deploy.diagnosis.locate import Located, Tell
from gn_deploy.diagnosis.minimal import smallest
from gn_deploy.diagnosis.repro import write
from gn_deploy.errors import GnDeployError
from gn_deploy.parity.report import Blame, Divergence, ParityReport


def closely(
    located: Located, one: Deployed, report: ParityReport, at_fault: bool, folder: Path | None, tell: Tell
) -> tuple[Divergence, Blame | None]:
    """The divergence with the files that were written, and what is to blame when that was asked for.

    What is written otherwise is no setting's fault; the small model of it goes wrong everywhere, and its script runs it
    in ONNX Runtime.
    """
    found = located.divergence
    if not found.value or not (at_fault or folder is not None):
        return found, None
    written = located.piece is not None and located.piece.truth is not located.piece.model

    def named(text: str) -> None:
        tell(f"{one.label}: {text}")

    small = smallest(located, one.opened, named)
    if small is None:
        why = "no part of the network shows it by itself"
        told = Blame(one.label, "", reason=why) if at_fault else None
        return replace(found, reason="; ".join(filter(None, (found.reason, why)))), told
    blamed: Blame | None = None
    options: dict[str, Any] = {}
    if at_fault and written:
        blamed = Blame(one.label, "", reason="no setting: it is what is written in the model")
    elif at_fault:
        blamed, options = find_blame(
            small[0], one.open_with, label=one.label, runtime=one.runtime, asked=one.asked, tell=named
        )
    if folder is not None:
        place = folder / re.sub(r"[^\w.-]", "-", "model" if written else one.label)
        try:
            files = write(
                place,
                *small,
                found,
                runtime=one.runtime,
                blame=blamed,
                asked=one.asked,
                options=options,
                environment=report.environment,
            )
            found = replace(found, files=files)
        except GnDeployError as error:
            found = replace(found, reason="; ".join(filter(None, (found.reason, f"not written: {error.message}"))))
    return found, blamed
