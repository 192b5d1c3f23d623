"""The plugin's library in the real registry of TensorRT-RTX, which needs no GPU: each case in a process of its own."""

import json
import os
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from gn_deploy.plugin.node import ATTRIBUTES, OPS
from tests.plugins.adapter import launch_objects, objects
from tests.plugins.compiled import PLUGINS, compiled

pytestmark = pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")

START = """
import json, sys
import numpy as np
import tensorrt_rtx as trt

class Logger(trt.ILogger):
    def __init__(self):
        trt.ILogger.__init__(self)
        self.errors = []
    def log(self, severity, message):
        if severity == trt.ILogger.Severity.ERROR:
            self.errors.append(message)

logger = Logger()
builder = trt.Builder(logger)
registry = trt.get_plugin_registry()
library, *names = sys.argv[1:]

def fields(**values):
    kinds = {int: (np.int32, trt.PluginFieldType.INT32), float: (np.float32, trt.PluginFieldType.FLOAT32)}
    made = []
    for name, value in values.items():
        if isinstance(value, str):
            made.append(trt.PluginField(name, np.frombuffer(value.encode(), np.uint8), trt.PluginFieldType.CHAR))
        else:
            dtype, kind = kinds[type(value)]
            made.append(trt.PluginField(name, np.array([value], dtype), kind))
    return trt.PluginFieldCollection(made)

def creator(name="GroupNorm"):
    return registry.get_creator(name, "1", "gn_deploy")

def told(value):
    print("TOLD" + json.dumps(value))
"""


@cache
def library() -> Path:
    """As it is shipped, with its list of exports, but for the kernels."""
    made = [*objects(), *launch_objects()]
    exports = PLUGINS / "tensorrt" / "exports.map"
    flags = ("-shared", "-Wl,-z,defs", f"-Wl,--version-script={exports}", "-ldl")
    return compiled("libgn_plugin_exported", made, *flags, reads=[exports])


def asked(code: str, **environment: str) -> tuple[object, str]:
    """What ``code`` told, and stderr."""
    done = subprocess.run(
        [sys.executable, "-c", START + code, str(library()), *OPS],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.rpartition("TOLD")[2]), done.stderr


def test_load_look_create_and_take_out_again() -> None:
    told, said = asked("""
absent = creator() is None
handle = registry.load_library(library)
seen = [(c.name, c.plugin_version, c.plugin_namespace) for c in map(creator, names)]
attributes = [f.name for f in creator().field_names]
listed = sorted(c.name for c in registry.all_creators if c.plugin_namespace == "gn_deploy")
logger.errors.clear()
again = registry.load_library(library) is None
duplicate = " ".join(logger.errors)
registry.deregister_library(handle)
gone = creator() is None
back = registry.load_library(library) is not None and creator() is not None
told([absent, seen, attributes, listed, again, duplicate, gone, back])
""")
    absent, seen, attributes, listed, again, duplicate, gone, back = told
    assert absent
    assert seen == [[name, "1", "gn_deploy"] for name in OPS]
    assert attributes == list(ATTRIBUTES)
    assert listed == sorted(OPS)
    assert again
    assert "exists already" in duplicate
    assert gone
    assert back
    assert "gn_deploy plugin:" not in said


def test_a_plugin_and_its_properties() -> None:
    told, _ = asked("""
registry.load_library(library)
values = dict(num_groups=32, epsilon=1e-6, activation="silu", residual=1, sum=1)
plugin = creator("SkipGroupNorm").create_plugin("norm", fields(**values), trt.TensorRTPhase.BUILD)
kinds = trt.PluginCapabilityType
core, build, runtime = map(plugin.get_capability_interface, (kinds.CORE, kinds.BUILD, kinds.RUNTIME))
told([core.plugin_name, core.plugin_version, core.plugin_namespace, build.num_outputs, build.format_combination_limit,
      build.timing_cache_id, build.metadata_string, runtime is not None])
""")
    *who, outputs, limit, timing, metadata, runtime = told
    assert who == ["SkipGroupNorm", "1", "gn_deploy"]
    assert (outputs, limit) == (2, 100)
    assert metadata.startswith("num_groups=32,epsilon=9.99999997e-07,activation=silu,")
    assert timing.startswith(metadata)
    assert runtime


def test_bad_fields_give_none_and_a_message() -> None:
    told, said = asked("""
registry.load_library(library)
made = [creator().create_plugin("norm", fields(**values), trt.TensorRTPhase.BUILD) is None
        for values in ({}, {"num_groups": 0}, {"num_groups": 8.0}, {"num_groups": 8, "activation": "swish"})]
made.append(creator().create_plugin("norm", fields(num_groups=8), trt.TensorRTPhase.RUNTIME) is None)
told(made)
""")
    assert told == [True] * 5
    for message in (
        "layer 'norm': attribute 'num_groups' is missing",
        "attribute 'num_groups' is 0",
        "attribute 'num_groups' must be one integer",
        "attribute 'activation' is 'swish'",
        "built with fields of version 0, this library reads version 1",
    ):
        assert message in said


@pytest.mark.parametrize(
    ("asked_for", "entered", "said"),
    [
        ("", 0, ""),
        ("0", 0, ""),
        ("1", len(OPS), ""),
        ("{tensorrt}", len(OPS), ""),
        ("libc.so.6", 0, "no plugin registry in libc.so.6"),
        ("libnothing.so.1", 0, "libnothing.so.1: cannot open shared object file"),
    ],
)
def test_registration_at_load_is_asked_for(asked_for, entered, said) -> None:
    """As ONNX Runtime's TensorRT provider and Triton load a library: by dlopen, and it may be closed again."""
    import tensorrt_rtx_libs

    (tensorrt,) = Path(tensorrt_rtx_libs.__file__).parent.glob("libtensorrt_rtx.so.*")
    told, heard = asked(
        """
import ctypes, _ctypes
_ctypes.dlclose(ctypes.CDLL(library)._handle)
told([c.name for c in registry.all_creators if c.plugin_namespace == "gn_deploy"])
""",
        GN_DEPLOY_PLUGIN_REGISTER=asked_for.format(tensorrt=tensorrt),
    )
    assert told == list(OPS)[:entered]
    assert (f"GN_DEPLOY_PLUGIN_REGISTER: {said}" in heard) == bool(said)


def test_what_is_registered_twice_is_told_once() -> None:
    told, heard = asked(
        """
import ctypes
ctypes.CDLL(library)
told(registry.load_library(library) is None)
""",
        GN_DEPLOY_PLUGIN_REGISTER="1",
    )
    assert told is True
    assert heard.count("gn_deploy plugin:") == 0, "the registry says it itself"


def test_preloaded_before_tensorrt_it_says_what_to_do() -> None:
    environment = {**os.environ, "LD_PRELOAD": str(library()), "GN_DEPLOY_PLUGIN_REGISTER": "1"}
    done = subprocess.run(["/bin/true"], env=environment, capture_output=True, text=True, check=True)
    assert "no TensorRT is loaded yet: set it to the name of one to load, such as libnvinfer.so.10" in done.stderr
