"""Prints which kernel of the plugin runs the shapes of real networks on which GPU, as a Markdown table.

    python scripts/kernel_choices.py > tests/plugins/kernel_choices.md

A cell is the variant, blocks that share a unit, 16-byte vectors that a thread holds, and where x is channels last the
bytes of a unit's rows, as gn_select decides them.
"""

from collections.abc import Iterator

from gn_deploy.decision import Rejected
from gn_deploy.plugin.problem import DEVICES, Device, Problem
from gn_deploy.plugin.select import select
from gn_deploy.plugin.units import ELEMENT_BYTES

GPUS = ("A10", "A100", "H200", "5090")

NETWORKS: dict[str, tuple[str, ...]] = {
    "Stable Diffusion 1.5, 2 images": (
        "2x320x64x64",
        "2x640x64x64",
        "2x960x64x64",
        "2x640x32x32",
        "2x1280x32x32",
        "2x1280x16x16",
        "2x2560x16x16",
        "2x1280x8x8",
        "2x2560x8x8",
    ),
    "SDXL, 2 images": ("2x320x128x128", "2x640x128x128", "2x1280x32x32", "2x2560x32x32"),
    "its decoder": (
        "1x512x64x64",
        "1x512x128x128",
        "1x512x256x256",
        "1x256x512x512",
        "1x128x512x512",
        "1x256x1024x1024",
        "1x128x1024x1024",
    ),
    "detection, 8 images": ("8x256x100x152", "8x256x50x76", "8x256x25x38", "8x256x13x19", "8x256x7x10"),
    "ResNet-50, 32 images": (
        "32x64x112x112",
        "32x64x56x56",
        "32x256x56x56",
        "32x128x28x28",
        "32x512x28x28",
        "32x1024x14x14",
        "32x512x7x7",
        "32x2048x7x7",
    ),
    "3-D U-Net, 8 groups": ("1x32x128x128x128", "1x64x64x64x64", "1x128x32x32x32", "1x320x8x8x8"),
    "video decoder": ("1x128x20x256x256", "1x512x16x180x320"),
    "an embedding": ("1x1280x1",),
}


def problems(layout: str = "nchw", dtype: str = "float16") -> Iterator[tuple[str, str, Problem]]:
    """Network, shape and problem, with SiLU behind it."""
    for network, shapes in NETWORKS.items():
        for shape in shapes:
            samples, channels, *sizes = map(int, shape.split("x"))
            positions = 1
            for size in sizes:
                positions *= size
            groups = 8 if network.startswith("3-D") else 32
            yield network, shape, Problem(samples, channels, positions, groups, layout, dtype, activation="silu")


def cell(problem: Problem, gpu: Device) -> str:
    """ "cluster 4, 10, 128": four blocks share a unit, a thread holds ten vectors, rows are 128 bytes wide."""
    selection = select(problem, gpu)
    if isinstance(selection, Rejected):
        raise AssertionError(selection.reason)
    choice = selection.choice
    shared = "" if choice.variant in ("warp", "block") else f" {choice.slices}"
    rows = f", {choice.slab * ELEMENT_BYTES[problem.dtype]}" if problem.layout == "nhwc" else ""
    return f"{choice.variant}{shared}, {choice.vectors}{rows}"


def group(p: Problem) -> str:
    """Bytes of x."""
    bytes_ = p.channels // p.groups * p.positions * ELEMENT_BYTES[p.dtype]
    return f"{bytes_ / 2**20:.3g} MB" if bytes_ >= 2**20 else f"{bytes_ / 2**10:.3g} KB"


def table(layout: str) -> str:
    rows = [
        f"| network | x | MB | group | {' | '.join(GPUS)} |",
        "|---|---|---|---|" + "---|" * len(GPUS),
    ]
    for network, shape, problem in problems(layout):
        x = problem.samples * problem.channels * problem.positions * ELEMENT_BYTES[problem.dtype]
        cells = " | ".join(cell(problem, DEVICES[gpu]) for gpu in GPUS)
        rows.append(f"| {network} | {shape} | {x / 2**20:.3g} | {group(problem)} | {cells} |")
    return "\n".join(rows)


def page() -> str:
    return f"NCHW, float16:\n\n{table('nchw')}\n\nNHWC, float16:\n\n{table('nhwc')}\n"


if __name__ == "__main__":
    print(page(), end="")
