"""The plugin's node for ONNX Runtime's TensorRT provider, which knows plugins by the domain ``trt.plugins`` alone."""

from gn_deploy.forms.base_plugin import PluginNode


class TrtPlugins(PluginNode):
    """The same node without a body: ONNX Runtime declares an operator of the domain for each plugin of the libraries in
    ``trt_extra_plugin_lib_paths``, and one that a function body defines as well would be two. Runs nowhere else."""

    name = "trt_plugins"
    domain = "trt.plugins"
    has_body = False


FORM = TrtPlugins()
