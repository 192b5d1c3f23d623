"""Cases at random, small enough to be emulated in a hundredth of a second or two."""

import random
from dataclasses import replace

from gn_deploy.plugin.problem import Problem
from gn_deploy.plugin.units import slabs_of
from tests.plugins.cases import Case

# (samples, groups, channels of a group, positions), by what they stress.
SHAPES = {
    "least": [(1, 1, 1, 1), (1, 1, 1, 3), (2, 3, 1, 1), (1, 3, 2, 1), (3, 5, 7, 1), (1, 2, 16, 2), (2, 32, 40, 1)],
    "odd": [
        (2, 3, 5, 49),
        (1, 4, 8, 49),
        (1, 7, 3, 121),
        (2, 2, 11, 13),
        (1, 5, 1, 333),
        (1, 1, 9, 77),
        (3, 2, 3, 247),
    ],
    "even": [(2, 8, 4, 64), (1, 4, 10, 64), (1, 2, 8, 256), (2, 4, 16, 16), (1, 32, 2, 64), (1, 2, 20, 144)],
    "wide": [(1, 1, 96, 100), (1, 2, 320, 9), (1, 1, 1280, 4), (1, 4, 160, 16), (1, 1, 600, 7), (1, 1, 2060, 3)],
    "large": [(1, 2, 4, 4096), (1, 1, 8, 5003), (2, 1, 32, 784), (1, 1, 3, 12001), (3, 1, 4, 3136)],
    "many": [(4, 16, 2, 40), (9, 3, 1, 64), (2, 40, 3, 30), (33, 1, 4, 12)],
}
ACTIVATIONS = ("none", "relu", "silu", "hardswish", "gelu", "gelu_tanh", "mish")
DATA = ("normal", "offset", "constant", "large", "tiny", "spike", "nan", "inf", "-inf")
VARIANTS = ("", "warp", "block", "cluster", "team", "split")
_SIZES = ("samples", "groups", "group_channels", "positions")
DTYPES = ("float16", "bfloat16", "float32")


def drawn(rng: random.Random, **given: object) -> Case:
    """Any field may be given."""

    def choose(name: str, values: tuple[object, ...]) -> object:
        picked = rng.choice(values)  # always, so that what is given changes nothing else
        return given.get(name, picked)

    shape = rng.choice(SHAPES[rng.choice(tuple(SHAPES))])
    shape = tuple(given.get(name, size) for name, size in zip(_SIZES, shape, strict=True))  # type: ignore[misc]
    layout = choose("layout", ("nchw", "nhwc"))
    dtype = choose("dtype", DTYPES)
    channels = shape[1] * shape[2]
    vector = 4 if dtype == "float32" else 8
    to_vectors = -channels % vector  # as TensorRT pads channels
    output = choose("output_dtype", ("", "", "", "int8", "float8_e4m3fn"))
    residual = choose("residual", (False, False, True))
    aligned = rng.random() < 0.5
    together = rng.randrange(vector)
    skews = [tuple(rng.randrange(2 * vector) for _ in range(4)), (together,) * 4]
    fields = {
        "layout": layout,
        "dtype": dtype,
        "parameter_dtype": choose("parameter_dtype", ("float32", dtype)),
        "output_dtype": output,
        "activation": choose("activation", ACTIVATIONS),
        "affine": choose("affine", (3, 3, 3, 2, 1, 0)),
        "modulation": choose("modulation", (0, 0, 3, 2, 1)),
        "residual": residual,
        "sum": rng.random() < 0.6 and residual,
        "pad": rng.choice((0, to_vectors, to_vectors + vector, 1)) if layout == "nhwc" else 0,
        "output_pad": rng.choice((0, -channels % 16, 3)) if layout == "nhwc" and output else 0,
        "skew": (0, 0, 0, 0) if aligned else rng.choice(skews),
        "data": choose("data", ("normal", "normal", *DATA)),
        "epsilon": choose("epsilon", (1e-5, 1e-6, 0.1)),
        "device": choose("device", ("hopper", "ampere", "turing", "blackwell", "many")),
        "variant": choose("variant", VARIANTS),
    }
    case = Case(*shape, **(fields | {name: value for name, value in given.items() if name not in _SIZES}))  # type: ignore[arg-type]
    wide = rng.random()
    if layout == "nchw" or wide < 0.5:
        return case
    slabs = slabs_of(Problem(**case.problem))
    return replace(case, slab=slabs[int(wide * 2 * len(slabs)) - len(slabs)])
