"""The library of tests/plugins/naive.cpp, compiled: gn.h in plain words, with a fault when it is asked for one."""

from pathlib import Path

from tests.plugins.compiled import PLUGINS, ROOT, compiled

SOURCE = ROOT / "tests" / "plugins" / "naive.cpp"


def naive() -> Path:
    kernels = PLUGINS / "kernels"
    flags = ("-O2", "-std=c++17", "-shared", "-fPIC", f"-I{kernels}")
    return compiled("naive.so", [SOURCE], *flags, reads=[kernels / "gn.h"])
