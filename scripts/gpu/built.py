"""The plugin's library for the GPU of this machine."""

from pathlib import Path

from gn_deploy.plugin import build as builder


def architecture() -> int:
    """10 * major + minor of the first GPU."""
    import torch

    major, minor = torch.cuda.get_device_capability(0)
    return 10 * int(major) + int(minor)


def build_here(path: Path, tell: builder.Tell = lambda done, total, name: None) -> Path:
    """For this GPU alone; objects that are still good are taken from the builder's cache."""
    return builder.build(path, architectures=[architecture()], tell=tell).path
