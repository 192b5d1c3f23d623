"""Takes models containing Group Normalization to production inference, and proves that nothing changed on the way."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gn_deploy.api import build as build
    from gn_deploy.api import compare as compare
    from gn_deploy.api import export as export
    from gn_deploy.api import find as find
    from gn_deploy.api import lower as lower
    from gn_deploy.errors import GnDeployError as GnDeployError
    from gn_deploy.forms.base import GroupNormSite as GroupNormSite
    from gn_deploy.parity.report import ParityReport as ParityReport
    from gn_deploy.passes.lower import LowerGroupNorm as LowerGroupNorm
    from gn_deploy.reference import group_norm as group_norm
    from gn_deploy.rehearse import would_notice as would_notice
    from gn_deploy.spec import GroupNormSpec as GroupNormSpec
    from gn_deploy.targets import Target as Target

__version__ = "0.1.0"

_PUBLIC = {
    "find": "api",
    "lower": "api",
    "export": "api",
    "build": "api",
    "compare": "api",
    "would_notice": "rehearse",
    "GnDeployError": "errors",
    "GroupNormSite": "forms.base",
    "GroupNormSpec": "spec",
    "LowerGroupNorm": "passes.lower",
    "ParityReport": "parity.report",
    "Target": "targets",
    "group_norm": "reference",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    """Public names are imported on first use: `import gn_deploy` alone loads nothing heavy."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'gn_deploy' has no attribute '{name}'")
    return getattr(import_module(f"gn_deploy.{_PUBLIC[name]}"), name)
