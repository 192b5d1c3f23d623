"""TensorRT 10.9 to 11, where it is installed: builds engines for the GPU of this machine and runs them."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gn_deploy.decision import Decision, Rejected
from gn_deploy.errors import UnavailableError
from gn_deploy.runtimes.base import BuildResult, Probe, RuntimeFailure, Session, installed
from gn_deploy.runtimes.cuda_driver import gpu
from gn_deploy.runtimes.isolated import build_in_child
from gn_deploy.runtimes.trt_plugin import checked_way, for_model
from gn_deploy.runtimes.worker import TIME_LIMIT

if TYPE_CHECKING:
    import onnx_ir as ir

OLDEST = (10, 9)
"""First release that imports GroupNormalization-21 (NVIDIA/TensorRT#4336)."""

INSTALL = "pip install tensorrt --extra-index-url https://pypi.nvidia.com"


class TensorRt:
    """Building and running both need the GPU. Written against the API of 10.9 to 11, not yet executed by us."""

    name = "tensorrt"
    packages = ("tensorrt",)
    precisions = ("tf32",)

    def probe(self) -> Probe:
        found = _version()
        usable: Decision = gpu()
        if found is None:
            usable = Rejected(f"tensorrt is not installed: {INSTALL}")
        elif tuple(int(part) for part in found.split(".")[:2]) < OLDEST:
            usable = Rejected(f"TensorRT {found} is older than {'.'.join(map(str, OLDEST))}: {INSTALL}")
        return Probe(self.name, found, usable, usable, usable.reason if usable else "")

    def open(self, model: "ir.Model | Path", *, precision: str | None = None, **options: Any) -> Session:
        """``model`` is an engine, an ONNX file or an ``ir.Model``, in which TF32 is taken only when ``precision`` asks
        for it; ``options`` are those of ``build``."""
        self._demand()
        import tensorrt as trt

        from gn_deploy.runtimes.trt_session import open_model

        return open_model(self, trt, model, {"tf32": precision == "tf32"} | options)

    def build(
        self, model: Path, out: Path, *, plugin: str | None = None, time_limit: float = TIME_LIMIT, **options: Any
    ) -> BuildResult:
        """``plugin``, one of ``trt_plugin.WAYS``, says what is done for nodes of gn_deploy's own.

        ``options``: ``shapes`` {input: (smallest, usual, largest)}, ``plugins``: libraries to load instead.
        """
        way = checked_way(plugin)
        self._demand()
        detail = ""
        if "plugins" not in options:
            loading = for_model(model, way)
            options |= {"plugins": loading.libraries, "quick": loading.quick}
            detail = loading.told
        built = build_in_child(self.name, model, out, time_limit, options)
        return replace(built, detail=detail) if detail else built

    def build_here(self, model: Path, out: Path, *, quick: bool = False, **options: Any) -> BuildResult:
        """The same in this process, which the parser may abort; ``quick`` leaves the quick plugin registered here."""
        import tensorrt as trt

        from gn_deploy.runtimes.trt_network import build

        if not quick:
            return build(trt, self.name, model, out, **options)
        from gn_deploy.plugin.quick import register

        refused = register()
        try:
            return build(trt, self.name, model, out, **options)
        except RuntimeFailure as error:
            if not refused:
                raise
            raise RuntimeFailure(f"{error.message}: {refused[-1].message}", refused[-1].hint) from error

    def _demand(self) -> None:
        probe = self.probe()
        if not probe.run:
            raise UnavailableError(f"TensorRT cannot be used here: {probe.run.reason}")


def _version() -> str | None:
    found = installed("tensorrt", "tensorrt-cu13", "tensorrt-cu12")
    if found is None and find_spec("tensorrt") is not None:  # NVIDIA's containers carry no distribution metadata
        import tensorrt

        found = str(tensorrt.__version__)
    return found


TENSORRT = TensorRt()
