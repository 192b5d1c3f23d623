"""TensorRT for RTX: builds engines ahead of time without a GPU, and says which kernels it fused; runs them with one."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gn_deploy.decision import Accepted, Rejected
from gn_deploy.errors import InputError, UnavailableError
from gn_deploy.runtimes.base import BuildResult, Probe, Session, installed
from gn_deploy.runtimes.cuda_driver import gpu
from gn_deploy.runtimes.isolated import build_in_child
from gn_deploy.runtimes.trt_plugin import checked_way
from gn_deploy.runtimes.worker import TIME_LIMIT

if TYPE_CHECKING:
    import onnx_ir as ir


class TensorRtRtx:
    """``build`` runs in a child process: the parser may abort its process, and only a process's first logger is told
    the kernels. Without ``compute_capabilities`` an engine runs on 8.0 and later, 7.5 must be asked for (NVIDIA,
    TensorRT-RTX documentation, "CPU-Only AOT")."""

    name = "tensorrt-rtx"
    packages = ("tensorrt_rtx",)
    precisions = ("tf32",)

    def probe(self) -> Probe:
        found = installed("tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12")
        if found is None:
            absent = Rejected("tensorrt-rtx is not installed: pip install tensorrt-rtx")
            return Probe(self.name, None, absent, absent)
        run = gpu()
        return Probe(self.name, found, run, Accepted("ahead of time, no GPU needed"), run.reason if run else "")

    def open(self, model: "ir.Model | Path", *, precision: str | None = None, **options: Any) -> Session:
        """``model`` is an engine, an ONNX file or an ``ir.Model``, in which TF32 is taken only when ``precision`` asks
        for it; ``options`` are those of ``build``."""
        probe = self.probe()
        if not probe.run:
            raise UnavailableError(f"TensorRT-RTX cannot run an engine here: {probe.run.reason}")
        import tensorrt_rtx as trt

        from gn_deploy.runtimes.trt_session import open_model

        return open_model(self, trt, model, {"tf32": precision == "tf32"} | options)

    def build(self, model: Path, out: Path, *, time_limit: float = TIME_LIMIT, **options: Any) -> BuildResult:
        """``options``: ``shapes`` {input: (smallest, usual, largest)}, ``compute_capabilities`` ("8.6",), ``plugins``.

        ``plugins`` are libraries to load first; of gn_deploy's own ``plugin`` can only be "none".
        """
        if checked_way(options.pop("plugin", None)) not in (None, "none"):
            raise InputError(
                "TensorRT-RTX compiles the bodies of the plugin's nodes: its parser crashes where a plugin answers",
                "--target tensorrt takes plugins",
            )
        probe = self.probe()
        if not probe.build:
            raise UnavailableError(probe.build.reason)
        return build_in_child(self.name, model, out, time_limit, options)

    def build_here(self, model: Path, out: Path, **options: Any) -> BuildResult:
        """The same in this process; no TensorRT-RTX logger may have been made in it before."""
        import tensorrt_rtx as trt

        from gn_deploy.runtimes.trt_network import build

        result = build(trt, self.name, model, out, **options)
        return result if result.detail else replace(result, detail="compute capability 8.0 and later")


TENSORRT_RTX = TensorRtRtx()
