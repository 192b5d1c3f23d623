"""The five public verbs: find, lower, export, build, compare."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx_ir as ir
    from gn_deploy.forms.base import GroupNormSite
    from gn_deploy.parity.report import ParityReport
    from gn_deploy.runtimes.base import BuildResult

# placeholders while the house is being built: the signatures are the contract
