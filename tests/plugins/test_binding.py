"""The ctypes binding says what gn.h says: sizes, offsets, numbers of names; and what it passes arrives."""

import ctypes
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from gn_deploy.decision import Accepted, Rejected
from gn_deploy.errors import ExitCode, InputError, UnavailableError
from gn_deploy.plugin.binding import (
    ACTIVATIONS,
    DTYPES,
    LAYOUTS,
    STRUCTS,
    VARIANTS,
    CBuffers,
    CChoice,
    CDevice,
    CProblem,
    LaunchError,
    Library,
    Selected,
    Status,
    as_dict,
    struct,
)
from gn_deploy.spec import Activation
from tests.plugins.compiled import PLUGINS, compiled

HEADER = PLUGINS / "kernels" / "gn.h"
ENUMS = {
    "gn_dtype": ["GN_F32", "GN_F16", "GN_BF16", "GN_I8", "GN_E4M3"],
    "gn_activation": [f"GN_{name.upper()}" for name in ACTIVATIONS],
    "gn_layout": [f"GN_{name.upper()}" for name in LAYOUTS],
    "gn_variant": [*(f"GN_{name.upper()}" for name in VARIANTS), "GN_VARIANTS"],
    "gn_status": [f"GN_{status.name}" for status in Status],
}
PROBLEM = {
    "samples": 2,
    "channels": 320,
    "positions": 2**33,
    "pitch": 320,
    "output_pitch": 352,
    "groups": 32,
    "epsilon": 0.5,
    "layout": "NHWC",
    "dtype": "bfloat16",
    "parameter_dtype": "float32",
    "output_dtype": "float8_e4m3fn",
    "activation": Activation.MISH,
    "output_scale": 0.25,
    "has_residual": True,
    "has_sum": False,
    "has_affine": 3,
    "has_modulation": 2,
}
DEVICE = {"compute_capability": 90, "multiprocessors": 132, "l2": 2**40, "cooperative": True}

ECHO = r"""
#include "gn.h"
#include <cstdio>
// Says what it was given: every number that the library must see is in a message or in a result.
extern "C" int gn_check(const gn_problem *p, char *message, size_t size) {
    snprintf(message, size, "%ld %ld %ld %ld %ld %d %g %d %d %d %d %d %g %d%d%d%d", (long)p->samples, (long)p->channels,
             (long)p->positions, (long)p->pitch, (long)p->output_pitch, p->groups, p->epsilon, p->layout, p->dtype,
             p->parameter_dtype, p->output_dtype, p->activation, p->output_scale, p->has_residual, p->has_sum,
             p->has_affine, p->has_modulation);
    return p->groups == 7 ? GN_BAD_PROBLEM : GN_OK;
}
extern "C" int gn_select(const gn_problem *p, const gn_device *d, int variant, gn_choice *c, char *message,
                         size_t size) {
    snprintf(message, size, "%d of %d", variant, d->compute_capability);
    *c = {variant < 0 ? GN_TEAM : variant, 5, 512, 4, (int32_t)p->channels, p->samples, p->positions,
          d->cooperative, 3, 9, d->l2};
    if (p->groups == 7) return GN_BAD_PROBLEM;
    return variant == GN_CLUSTER && d->compute_capability < 90 ? GN_NOT_SUITED : GN_OK;
}
extern "C" void gn_room(const gn_problem *p, const gn_device *d, int64_t *workspace, int32_t *counters) {
    *workspace = p->samples * 1000, *counters = d->multiprocessors;
}
extern "C" const char *gn_variant_name(int variant) { return variant == GN_SPLIT ? "split" : "another"; }
extern "C" int gn_enqueue(const gn_problem *, const gn_choice *c, const gn_buffers *b, void *stream, char *message,
                          size_t size) {
    snprintf(message, size, "%lx %lx %lx %lx %lx %lx %lx %lx %lx %lx on %lx", (long)b->x, (long)b->residual,
             (long)b->scale, (long)b->bias, (long)b->modulation_scale, (long)b->modulation_shift, (long)b->y,
             (long)b->sum, (long)b->workspace, (long)b->counters, (long)stream);
    return c->vectors;
}
extern "C" int gn_query_device(int ordinal, gn_device *d, char *message, size_t size) {
    d->multiprocessors = 77;
    snprintf(message, size, "no device %d", ordinal);
    return ordinal ? GN_LAUNCH_FAILED : GN_OK;
}
"""


@pytest.fixture(scope="module")
def echo() -> Library:
    flags = ("-std=c++17", "-shared", "-fPIC", f"-I{HEADER.parent}")
    return Library(compiled("echo.so", [ECHO], *flags, reads=[HEADER]))


def test_structs_are_laid_out_as_in_c() -> None:
    lines = []
    for name, kind in STRUCTS.items():
        lines.append(f'printf("{name} %zu\\n", sizeof({name}));')
        for field in (f[0] for f in kind._fields_):
            where = f"offsetof({name}, {field}), sizeof((({name} *)0)->{field})"
            lines.append(f'printf("{name}.{field} %zu %zu\\n", {where});')
    source = f'#include "gn.h"\n#include <cstdio>\nint main() {{ {" ".join(lines)} }}\n'
    program = compiled("layout", [source], "-std=c++17", f"-I{HEADER.parent}", reads=[HEADER])
    said = subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines()
    ours = []
    for name, kind in STRUCTS.items():
        ours.append(f"{name} {ctypes.sizeof(kind)}")
        for field in (f[0] for f in kind._fields_):
            ours.append(f"{name}.{field} {getattr(kind, field).offset} {getattr(kind, field).size}")
    assert ours == said


@pytest.mark.parametrize("name", STRUCTS)
def test_no_field_of_c_is_missing(name: str) -> None:
    body = re.sub(r"//[^\n]*", "", HEADER.read_text()).partition(f"}} {name};")[0].rpartition("typedef struct {")[2]
    declared = [
        word for words in re.findall(r"\w+ ([^;]+);", body.replace("const ", "")) for word in re.findall(r"\w+", words)
    ]
    assert declared == [field[0] for field in STRUCTS[name]._fields_]


@pytest.mark.parametrize("name", ENUMS)
def test_names_are_numbered_as_in_c(name: str) -> None:
    body = re.sub(r"//[^\n]*", "", HEADER.read_text()).partition(f"}} {name};")[0].rpartition("typedef enum {")[2]
    declared = re.findall(r"GN_\w+", body)
    assert declared == ENUMS[name]


def test_activations_are_those_of_the_specification() -> None:
    assert sorted(ACTIVATIONS) == sorted(Activation)
    assert len(DTYPES) == len(ENUMS["gn_dtype"])


def test_a_problem_arrives(echo: Library) -> None:
    wanted = f"2 320 {2**33} 320 352 32 0.5 1 2 0 4 6 0.25 1032"
    for given in (PROBLEM, SimpleNamespace(**PROBLEM), struct(CProblem, PROBLEM)):
        assert echo.check(given) == Accepted(wanted)
    assert echo.check(PROBLEM | {"groups": 7}) == Rejected(wanted.replace(" 32 ", " 7 "))


def test_names_come_back() -> None:
    back = as_dict(struct(CProblem, PROBLEM))
    assert back == PROBLEM | {"layout": "nhwc", "activation": "mish", "has_residual": 1, "has_sum": 0}
    assert struct(CProblem, back).positions == 2**33


def test_a_choice_comes_back(echo: Library) -> None:
    selected = echo.select(PROBLEM, DEVICE)
    assert isinstance(selected, Selected)
    assert (selected.variant, selected.reason) == ("team", "-1 of 90")
    assert as_dict(selected.choice) == {
        "variant": "team",
        "vectors": 5,
        "threads": 512,
        "slices": 4,
        "slab": 320,
        "units": 2,
        "blocks": 2**33,
        "shared": 1,
        "ahead": 3,
        "counters": 9,
        "workspace": 2**40,
    }


def test_a_variant_is_asked_for_by_name_or_number(echo: Library) -> None:
    for forced in ("split", 4):
        selected = echo.select(PROBLEM, DEVICE, forced)
        assert isinstance(selected, Selected)
        assert (selected.variant, selected.reason) == ("split", "4 of 90")
    assert echo.select(PROBLEM, DEVICE | {"compute_capability": 86}, "cluster") == Rejected("2 of 86")
    with pytest.raises(InputError, match=r"variant='warps' has no number in gn.h.*warp, block"):
        echo.select(PROBLEM, DEVICE, "warps")


def test_a_bad_problem_is_the_callers_mistake(echo: Library) -> None:
    with pytest.raises(InputError, match="-1 of 90"):
        echo.select(PROBLEM | {"groups": 7}, DEVICE)


def test_addresses_and_the_stream_arrive(echo: Library) -> None:
    names = [field[0] for field in CBuffers._fields_]
    buffers = {name: 0x7F00_0000_0000 + 16 * i for i, name in enumerate(names)}
    echo.enqueue(PROBLEM, CChoice(vectors=Status.OK), buffers, 0x99)
    addresses = " ".join(f"{a:x}" for a in buffers.values())
    with pytest.raises(LaunchError, match=f"^{addresses} on 99$") as told:
        echo.enqueue(PROBLEM, CChoice(vectors=Status.LAUNCH_FAILED), buffers, 0x99)
    assert told.value.exit_code is ExitCode.BUG
    only = {"x": 16, "y": 32}
    with pytest.raises(InputError, match=r"^10 0 0 0 0 0 20 0 0 0 on 0$"):
        echo.enqueue(PROBLEM, CChoice(vectors=Status.BAD_POINTER), only)


def test_a_device_comes_back_or_is_not_there(echo: Library) -> None:
    assert echo.query_device().multiprocessors == 77
    with pytest.raises(UnavailableError, match="no device 3"):
        echo.query_device(3)
    assert (echo.variant_name(4), echo.variant_name(0)) == ("split", "another")
    assert echo.room(PROBLEM, DEVICE) == (PROBLEM["samples"] * 1000, DEVICE["multiprocessors"])


def test_a_key_that_is_no_field_is_told() -> None:
    with pytest.raises(InputError, match=r"'sms' is no field of CDevice.*multiprocessors"):
        struct(CDevice, {"sms": 132})
    with pytest.raises(AttributeError):
        struct(CDevice, SimpleNamespace(sms=132))


def test_what_is_no_library_of_ours_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such library.*gn-deploy plugin build"):
        Library(tmp_path / "missing.so")
    text = tmp_path / "text.so"
    text.write_text("not a library")
    with pytest.raises(UnavailableError, match=r"cannot load .*text.so"):
        Library(text)
    other = compiled("other.so", ["int other() { return 0; }"], "-shared", "-fPIC")
    with pytest.raises(UnavailableError, match="does not export gn_check"):
        Library(other)
