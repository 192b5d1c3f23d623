"""Ways of writing Group Normalization as ONNX nodes, one file each, open to third parties."""

from typing import TYPE_CHECKING

from gn_deploy.registry import Registry

if TYPE_CHECKING:
    from gn_deploy.forms.base import Form

FORMS: "Registry[Form]" = Registry(
    "form",
    "gn_deploy.forms",
    {
        name: f"gn_deploy.forms.{name}:FORM"
        for name in (
            "native",
            "native18",
            "instance_norm",
            "layer_norm",
            "primitives",
            "statistics_affine",
            "batch_norm",
            "mean_variance",
            "contrib",
            "plugin",
            "trt_plugins",
            "nvidia_plugin",
        )
    },
)
