"""The node of gn_deploy's own TensorRT plugin with a function body: one file for TensorRT and for everything else."""

from gn_deploy.forms.base_plugin import PluginNode
from gn_deploy.plugin.node import DOMAIN


class Plugin(PluginNode):
    """``gn_deploy::GroupNorm`` and ``gn_deploy::SkipGroupNorm``, each with a FunctionProto in standard operators.

    TensorRT finds the plugin by ``plugin_namespace`` where the library is loaded; where it is not, it takes the body,
    as ONNX Runtime does (onnx-tensorrt 10.15 and later; between 10.7 and 10.14 a plugin of the name goes first too).
    """

    name = "plugin"
    domain = DOMAIN
    has_body = True


FORM = Plugin()
