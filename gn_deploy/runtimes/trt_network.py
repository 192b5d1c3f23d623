"""From an ONNX file to a plan, alike for TensorRT and TensorRT-RTX: parse, profile, build, list the kernels."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gn_deploy.errors import InputError
from gn_deploy.graph.atomic import atomic
from gn_deploy.runtimes.base import BuildResult, Kernel, RuntimeFailure, one_line
from gn_deploy.runtimes.handover import model_path

Shape = tuple[int, ...]
Profiles = Mapping[str, Sequence[Shape]]
"""Input name -> its smallest, usual and largest shape."""

LARGEST_BATCH = 8
"""Largest batch of a profile nobody gave: memory is set aside for it, and 8 serves a small server."""


def recording_logger(trt: Any) -> Any:
    """A logger that keeps every message in ``messages`` as (severity name, text).

    TensorRT-RTX tells the compiled kernels only in a VERBOSE message, and only to the first logger of the process.
    """

    class Recorder(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: list[tuple[str, str]] = []

        def log(self, severity: Any, message: str) -> None:
            self.messages.append((severity.name, message))

    return Recorder()


def build(
    trt: Any,
    runtime: str,
    model: Path,
    out: Path,
    *,
    shapes: Profiles | None = None,
    compute_capabilities: Sequence[str] = (),
    plugins: Sequence[Path] = (),
    tf32: bool = True,
) -> BuildResult:
    """Builds a strongly typed network into the plan ``out``, in this process, written atomically.

    ``compute_capabilities`` such as "8.9" are TensorRT-RTX's alone; ``tf32``, as TensorRT itself has it, lets products
    of float32 be taken in TF32. Raises RuntimeFailure with the nodes that the
    parser refuses, InputError for a profile that cannot be guessed.
    """
    model_path(model)
    logger = recording_logger(trt)
    builder = trt.Builder(logger)  # before the plugins: what the registry has to say goes to the first builder's logger
    load_plugins(trt, logger, plugins)
    network = builder.create_network(network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(model)):
        raise RuntimeFailure(f"{runtime} {trt.__version__} cannot import {parser_errors(parser)}")
    config = builder.create_builder_config()
    if not tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    add_profile(builder, config, network, shapes or {})
    if compute_capabilities:
        set_compute_capabilities(trt, config, compute_capabilities)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise RuntimeFailure(f"{runtime} {trt.__version__} cannot build the engine: {last_error(logger)}")
    kernels = kernels_of_log(text for _, text in logger.messages) or kernels_of_plan(trt, logger, plan)
    with atomic(out) as (file,):
        file.write(plan)
    detail = f"compute capability {', '.join(compute_capabilities)}" if compute_capabilities else ""
    return BuildResult(out, runtime, trt.__version__, plan.nbytes, kernels, detail)


def last_error(logger: Any, since: int = 0) -> str:
    """The last error that a ``recording_logger`` heard after its first ``since`` messages, on one line."""
    said = [text for severity, text in logger.messages[since:] if severity in ("ERROR", "INTERNAL_ERROR")]
    return one_line(said[-1]) if said else "no reason told"


def network_flags(trt: Any) -> int:
    """STRONGLY_TYPED, so that precision is what the graph says: a flag up to TensorRT 10, the only mode in 11."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def parser_errors(parser: Any) -> str:
    """Node by node: "GroupNormalization 'gn' (Assertion failed: nbDims >= 3 ...)"."""
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    return "; ".join(f"{e.node_operator()} '{e.node_name()}' ({one_line(e.desc())})" for e in errors) or "the file"


def add_profile(builder: Any, config: Any, network: Any, shapes: Profiles) -> None:
    """One optimization profile when any input is dynamic: the given shapes, or batch 1 to LARGEST_BATCH."""
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    unknown = sorted(set(shapes) - {tensor.name for tensor in inputs})
    if unknown:
        names = ", ".join(tensor.name for tensor in inputs)
        raise InputError(f"--shapes names '{unknown[0]}', which is no input of the model", f"its inputs: {names}")
    dynamic = [tensor for tensor in inputs if -1 in tuple(tensor.shape)]
    if not dynamic:
        return
    profile = builder.create_optimization_profile()
    for tensor in dynamic:
        shape = tuple(tensor.shape)
        profile.set_shape(tensor.name, *_profile(tensor.name, shape, shapes.get(tensor.name)))
    if config.add_optimization_profile(profile) < 0:
        raise InputError("TensorRT refuses these shapes", "each must satisfy minimum <= usual <= maximum")


def _profile(name: str, shape: Shape, given: Sequence[Shape] | None) -> Sequence[Shape]:
    if given is None:
        guess = [(batch if shape[0] == -1 else shape[0], *shape[1:]) for batch in (1, 1, LARGEST_BATCH)]
        if any(-1 in g for g in guess):
            example = "x".join(str(n) if n > 0 else "N" for n in shape)
            raise InputError(
                f"input '{name}' of shape {list(shape)} has dynamic sizes beyond the batch, which cannot be guessed",
                f"give them: --shapes {name}={example}:{example}:{example} (smallest, usual, largest)",
            )
        return guess
    for one in given:
        if len(one) != len(shape) or any(want not in (-1, got) for want, got in zip(shape, one, strict=True)):
            raise InputError(
                f"--shapes {name}={'x'.join(map(str, one))} does not fit the model's {list(shape)}",
                "-1 stands for a size that may be chosen, the others are fixed",
            )
    return given


def set_compute_capabilities(trt: Any, config: Any, wanted: Sequence[str]) -> None:
    """GPU generations that the plan runs on, "8.9" meaning SM89."""
    known = {m.removeprefix("SM"): m for m in trt.ComputeCapability.__members__ if m.startswith("SM")}
    config.num_compute_capabilities = len(wanted)
    for index, text in enumerate(wanted):
        member = known.get(text.replace(".", ""))
        if member is None:
            offered = ", ".join(f"{digits[:-1]}.{digits[-1]}" for digits in known)
            raise InputError(f"compute capability '{text}' is not one TensorRT-RTX builds for", f"one of {offered}")
        config.set_compute_capability(getattr(trt.ComputeCapability, member), index)


_LOADED: set[tuple[int, Path]] = set()  # a registry refuses what it has


def load_plugins(trt: Any, logger: Any, plugins: Sequence[Path]) -> None:
    """Loads plugin libraries into the registry, where the parser looks for what it does not know; each once."""
    for library in map(Path, plugins):
        if not library.is_file():
            raise InputError(f"no such plugin library: {library}")
        if (id(trt), library.resolve()) in _LOADED:
            continue
        heard = len(logger.messages)
        if trt.get_plugin_registry().load_library(str(library)) is None:  # never an exception
            raise InputError(
                f"cannot load plugin library {library}: {last_error(logger, heard)}",
                "it must export getCreators and setLoggerFinder",
            )
        _LOADED.add((id(trt), library.resolve()))


def kernels_of_log(messages: Iterable[str]) -> tuple[Kernel, ...]:
    """The kernels in the VERBOSE message that starts with "Layers:"; empty when there is none."""
    dump = next((m for m in messages if m.startswith("Layers:")), "")
    lines = [line for line in dump.splitlines() if line.startswith("Name: ")]
    keys = ("Name", "LayerType", "TacticName")
    told = [[*(_field(line, key) for key in keys), line.rpartition("Metadata: ")[2]] for line in lines]
    return tuple(_kernel(*fields) for fields in told if fields[1] != "shape_call")  # which computes sizes on the host


def kernels_of_plan(trt: Any, logger: Any, plan: Any) -> tuple[Kernel, ...]:
    """The kernels as the engine inspector tells them; needs a GPU, so empty where there is none."""
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
    if engine is None:
        return ()
    told = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    layers = [layer for layer in json.loads(told)["Layers"] if isinstance(layer, dict)]
    keys = ("Name", "LayerType", "TacticName", "Metadata")
    return tuple(_kernel(*(layer.get(key, "") for key in keys)) for layer in layers)


def _kernel(name: str, kind: str, tactic: str, metadata: str) -> Kernel:
    nodes = re.findall(r"\[ONNX Layer: (.+?)\](?=\[|\x1e|\s|$)", metadata)
    return Kernel(tactic or name, kind, tuple(dict.fromkeys(map(_in_file, nodes))))


def _in_file(origin: str) -> str:
    """The node that a file's reader sees: of "node_of_u | gn (GroupNorm) | ..." the call of the function, gn.

    What is on the way is inner most first; an If may stand between, and functions called before may follow.
    """
    name, *around = origin.split(" | ")
    calls = (re.fullmatch(r"(.+) \((\w+)\)", text) for text in around)
    return next((call[1] for call in calls if call and call[2] != "If"), name)


def _field(line: str, key: str) -> str:
    found = re.search(rf"(?:^|, ){key}: ([^,]*)", line)
    return found[1].strip() if found else ""
