"""One problem on one variant: right within the harness's tolerance, the same bits three times, nothing else touched."""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gn_deploy.decision import Rejected
from gn_deploy.errors import GnDeployError
from gn_deploy.parity.metrics import measure
from gn_deploy.parity.tolerance import Bounds, bounds
from gn_deploy.plugin.binding import CDevice, Library
from gn_deploy.rounding import FORMATS
from gn_deploy.spec import Activation, GroupNormSpec
from scripts.gpu import inputs
from scripts.gpu.inputs import Inputs
from scripts.gpu.sample import Check

Array = NDArray[Any]

GUARD = 256  # bytes before and behind each tensor that must stay as they were; a vector too far is 16
RUNS = 3
FILLS = (0xA5, 0x5A, 0xFF)  # what outputs and workspace hold before each run; 0xFF is a NaN in every float type
E4M3_U, E4M3_LEAST, E4M3_LARGEST = 2.0**-4, 2.0**-9, 448.0  # half an ulp of 1; least subnormal (OCP 8-bit, 2023)


class Memory(Protocol):
    """Where the library's pointers lead: a GPU's memory, or the host's for the emulator."""

    stream: int | None

    def put(self, data: Array) -> int:
        """Address, a multiple of 256, of a copy of these bytes."""

    def replace(self, address: int, data: Array) -> None: ...

    def get(self, address: int, size: int) -> Array:
        """The bytes there, once everything on the stream is done."""

    def free(self) -> None: ...


def draw(check: Check, seed: int = 0) -> Inputs:
    """Tensors are (N, C, ...) or, channels last, (N, ..., C)."""
    drawn = inputs.draw(
        np.random.default_rng(seed),
        check.shape,
        check.groups,
        data=check.data,
        dtype=check.dtype,
        parameter_dtype=check.parameter_dtype,
        residual=check.residual,
        affine=check.affine,
        modulation=check.modulation,
    )
    if check.layout == "nchw":
        return drawn
    x, residual = (None if a is None else np.ascontiguousarray(np.moveaxis(a, 1, -1)) for a in drawn[:2])
    return drawn._replace(x=x, residual=residual)


def expected(check: Check, given: Inputs) -> Bounds | None:
    """The float64 oracle and how far off it one may be; None where nothing is computed."""
    if not check.elements:
        return None
    spec = GroupNormSpec(
        check.groups,
        check.shape[1],
        float(np.float32(check.epsilon)),  # as the library receives it
        dtype=check.dtype,
        channel_axis=1 if check.layout == "nchw" else -1,
        activation=Activation(check.activation),
    )
    return bounds(
        given.total,
        spec,
        given.scale,
        given.bias,
        dtype=check.dtype if check.y_dtype == check.dtype else "float32",  # quantized from float32 values
        modulation_scale=given.modulation_scale,
        modulation_shift=given.modulation_shift,
    )


def run(
    check: Check,
    variant: str,
    library: Library,
    device: CDevice,
    memory: Memory,
    *,
    given: Inputs | None = None,
    oracle: Bounds | None = None,
) -> dict[str, Any]:
    """{"ran": False, "reason"} where the variant is not suited, else {"ran": True, "faults": [...], "ratio"}.

    ``ratio`` is the worst error over its bound. ``given`` and ``oracle`` save drawing them for each variant.
    """
    problem = check.problem()
    selected = library.select(problem, device, variant)
    if isinstance(selected, Rejected):
        return {"ran": False, "reason": selected.reason}
    given = given or draw(check)
    try:
        got, faults = _launched(check, problem, selected.choice, given, library, memory)
    except GnDeployError as error:
        return {"ran": True, "faults": [error.message], "ratio": math.inf}
    finally:
        memory.free()
    oracle = oracle or expected(check, given)
    ratio = judge(check, got["y"], oracle) if oracle is not None else 0.0
    if not ratio <= 1:
        faults.append(f"y is {ratio:.3g} times its bound off")
    if check.sum and got["sum"].tobytes() != given.total.tobytes():
        faults.append("sum is not x + residual rounded to its type")
    return {"ran": True, "faults": faults, "ratio": ratio}


def judge(check: Check, y: Array, oracle: Bounds) -> float:
    """The worst error over its bound; infinite for a NaN where there is none, or the reverse."""
    if check.y_dtype == check.dtype:
        found = measure(y, oracle.reference, oracle.two_pass, dtype=check.dtype)
        return float(found.error_over_bound)
    value, bound = oracle.reference / check.output_scale, oracle.two_pass / check.output_scale
    bound = bound + 4 * FORMATS["float32"].u * np.abs(value)  # the division, or the product with a reciprocal
    if check.y_dtype == "int8":
        wanted, bound = np.clip(value, -128, 127), bound + 0.5
    else:
        wanted = np.clip(value, -E4M3_LARGEST, E4M3_LARGEST)
        bound = bound * (1 + E4M3_U) + E4M3_U * np.abs(wanted) + E4M3_LEAST / 2
    with np.errstate(all="ignore"):
        error = np.abs(y.astype(np.float64) - wanted) / bound
    return float(np.where(np.isnan(error), np.inf, error).max())


def _launched(
    check: Check, problem: dict[str, Any], choice: Any, given: Inputs, library: Library, memory: Memory
) -> tuple[dict[str, Array], list[str]]:
    """The outputs, and what went wrong besides their values."""
    faults: list[str] = []
    places: dict[str, _Place] = {}
    for name in ("x", "residual", "scale", "bias", "modulation_scale", "modulation_shift"):
        array = getattr(given, name)
        if array is not None:
            places[name] = _Place.of(array, check, rows=name in ("x", "residual"))
            places[name].address = memory.put(places[name].image)
    kinds = {"y": check.y_dtype} | ({"sum": check.dtype} if check.sum else {})
    for name, kind in kinds.items():
        places[name] = _Place.of(np.zeros(given.x.shape, np.dtype(kind)), check, rows=True)
        places[name].address = memory.put(places[name].image)
    work = memory.put(np.zeros(max(choice.workspace, 1), np.uint8))
    counters = memory.put(np.zeros(4 * max(choice.counters, 1), np.uint8))
    buffers = {name: place.start for name, place in places.items()} | {"workspace": work, "counters": counters}
    first: dict[str, bytes] = {}
    outputs: dict[str, Array] = {}
    for number, fill in zip(range(RUNS), FILLS, strict=True):
        for name in kinds:
            memory.replace(places[name].address, np.full_like(places[name].image, fill))
        memory.replace(work, np.full(max(choice.workspace, 1), fill, np.uint8))
        library.enqueue(problem, choice, buffers, memory.stream)
        for name in kinds:
            place = places[name]
            image = memory.get(place.address, place.image.size)
            faults += [f"{name}: {fault} in run {number + 1}" for fault in place.faults(image, fill)]
            outputs[name] = place.tensor(image)
            bits = outputs[name].tobytes()
            if first.setdefault(name, bits) != bits:
                faults.append(f"{name} of run {number + 1} has other bits than that of run 1")
        if memory.get(counters, 4 * choice.counters).any():
            faults.append(f"counters are not zero after run {number + 1}")
    for name in places.keys() - kinds.keys():
        if memory.get(places[name].address, places[name].image.size).tobytes() != places[name].image.tobytes():
            faults.append(f"{name} was written to")
    return outputs, faults


@dataclass
class _Place:
    """A tensor in memory: guards around it, ``shift`` elements off alignment, rows ``padding`` elements apart."""

    image: Array
    """All bytes."""
    begin: int
    """Offset of the tensor."""
    shape: tuple[int, ...]
    dtype: Any
    padding: int
    address: int = 0

    @classmethod
    def of(cls, array: Array, check: Check, *, rows: bool) -> "_Place":
        """``rows``: it is of x's shape, so that rows may be padded; the padding is NaN."""
        padding = check.padding if rows else 0
        begin = GUARD + check.shift * array.itemsize
        padded = np.full((*array.shape[:-1], array.shape[-1] + padding), 0, array.dtype)
        padded.view(np.uint8)[:] = 0xFF
        padded[..., : array.shape[-1]] = array
        image = np.full(begin + padded.nbytes + GUARD, 0xC3, np.uint8)
        image[begin : begin + padded.nbytes] = padded.reshape(-1).view(np.uint8)
        return cls(image, begin, array.shape, array.dtype, padding)

    @property
    def start(self) -> int:
        return self.address + self.begin

    def tensor(self, image: Array) -> Array:
        return self._padded(image)[..., : self.shape[-1]]

    def faults(self, image: Array, fill: int) -> list[str]:
        """Of an output: ``fill`` is what was there before."""
        end = self.begin + self._padded(image).nbytes
        found = []
        if (image[: self.begin] != fill).any() or (image[end:] != fill).any():
            found.append("written beyond its ends")
        if self.padding and self._padded(image)[..., self.shape[-1] :].view(np.uint8).any():
            found.append("padding is not zero")
        return found

    def _padded(self, image: Array) -> Array:
        shape = (*self.shape[:-1], self.shape[-1] + self.padding)
        size = math.prod(shape) * np.dtype(self.dtype).itemsize
        return np.frombuffer(image[self.begin : self.begin + size].tobytes(), self.dtype).reshape(shape)
