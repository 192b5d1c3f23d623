"""Mistakes seeded into the kernels, each as a change of their source, and the cases that have to see it."""

import hashlib
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gn_deploy.plugin.binding import LaunchError, Library
from tests.plugins.cases import Case, Run, draw, run
from tests.plugins.compiled import FOLDER, compiled
from tests.plugins.contract import check
from tests.plugins.emulated import (
    EMULATOR,
    INSTRUMENTED,
    KERNELS,
    Machine,
    emulator_objects,
    flags,
    headers,
    kernel_objects,
    linked,
)
from tests.plugins.far import check_far_apart


@dataclass(frozen=True)
class Instances:
    """One compiled kernel or two, instead of all that stand in ``source``: so a mutant is ready in a second."""

    source: str
    text: str

    def code(self, vectors: int = 2) -> str:
        return self.text.replace("VECTORS", str(vectors))


def _resident(layout: str, dtype: str, epilogue: str) -> str:
    kernel = f"{layout}_resident_kernel<EXCHANGE, GN_{dtype}, {epilogue}, VECTORS>"
    return f"""
template <> Kernel {layout}_resident<GN_{dtype}>(gn_variant variant, Epilogue, int vectors) {{
    if (vectors != VECTORS) return nullptr;
    return variant == GN_TEAM ? {kernel.replace("EXCHANGE", "Team")} : {kernel.replace("EXCHANGE", "Cluster")};
}}"""


def _split(layout: str, dtype: str) -> str:
    return f"""
template <> Kernel {layout}_split<GN_{dtype}>(Pass pass, Epilogue) {{
    return pass == kStatistics ? {layout}_statistics_kernel<GN_{dtype}> : {layout}_apply_kernel<GN_{dtype}, kAny>;
}}"""


def _file(*parts: str, include: tuple[str, ...]) -> str:
    return "".join(f'#include "{name}"\n' for name in include) + "namespace gn {" + "".join(parts) + "\n}\n"


_DISPATCH = "dispatch.h"
NCHW = Instances(
    "nchw_resident_f16.cu", _file(_resident("nchw", "F16", "kAny"), include=(_DISPATCH, "nchw_resident.h"))
)
NCHW_F32 = Instances(
    "nchw_resident_f32.cu", _file(_resident("nchw", "F32", "kPlain"), include=(_DISPATCH, "nchw_resident.h"))
)
_WARP = """
template <> Kernel nchw_warp<GN_F16>(Epilogue, int vectors) {
    return vectors == VECTORS ? nchw_warp_kernel<GN_F16, kPlain, VECTORS> : nullptr;
}"""
SMALL = Instances(
    "nchw_small_f16.cu", _file(_WARP, _split("nchw", "F16"), include=(_DISPATCH, "nchw_warp.h", "nchw_split.h"))
)
NHWC = Instances(
    "nhwc_f16.cu",
    _file(
        _resident("nhwc", "F16", "kAny"), _split("nhwc", "F16"), include=(_DISPATCH, "nhwc_resident.h", "nhwc_split.h")
    ),
)

_BLOCK = Case(2, 3, 8, 131, variant="block", activation="gelu")
_CLUSTER = Case(2, 2, 8, 260, variant="cluster")
_TEAM = Case(3, 3, 4, 1029, variant="team", device="blackwell", skew=(3, 3, 3, 3))
_TEAM_F32 = Case(2, 2, 8, 260, dtype="float32", variant="team")
_ROWS = Case(2, 3, 4, 66, "nhwc", variant="block", pad=4, residual=True, sum=True)
_ROWS_CLUSTER = replace(_ROWS, variant="cluster", positions=130)
BASELINE = {
    NCHW: (_BLOCK, _CLUSTER, _TEAM, replace(_BLOCK, data="offset"), replace(_BLOCK, data="tiny")),
    NCHW_F32: (_TEAM_F32, replace(_TEAM_F32, variant="block", positions=100, activation="relu", data="nan")),
    SMALL: (Case(2, 6, 3, 40, variant="warp"), Case(2, 2, 8, 2100, variant="split", activation="relu")),
    NHWC: (_ROWS, replace(_ROWS, variant="split", positions=900), replace(_ROWS, variant="team", positions=130)),
}


@dataclass(frozen=True)
class Mutation:
    """``changes`` are (file, what stands there exactly once, what stands there instead).

    ``told`` is part of what must be said of it: a mistake that is found as another one would be found by chance.
    """

    name: str
    of: Instances
    case: Case
    told: str
    changes: tuple[tuple[str, str, str], ...]


MUTATIONS = (
    Mutation(
        "warps do not wait for each other's parts",
        NCHW,
        _BLOCK,
        "race: ",
        (("statistics.h", "const bool any = barrier_any(flag);", "const bool any = flag;"),),
    ),
    Mutation(
        "a block of a cluster sends before the others have begun",
        NCHW,
        _CLUSTER,
        "Mbarrier",
        (
            ("exchange.h", "        cluster_wait();\n    }", "    }"),
            (
                "exchange.h",
                "receive(mbarrier());\n            p =",
                "receive(mbarrier());\n            cluster_wait();\n            p =",
            ),
        ),
    ),
    Mutation(
        "a block of a cluster waits for one too few",
        NCHW,
        _CLUSTER,
        "send (exchange.h:",
        (
            (
                "exchange.h",
                "(arguments.slices * count * kPartialBytes)",
                "((arguments.slices - 1) * count * kPartialBytes)",
            ),
        ),
    ),
    Mutation(
        "what the blocks of a cluster send is read before it has come",
        NCHW,
        _CLUSTER,
        "race: ",
        (("exchange.h", "            receive(mbarrier());\n            p = united", "            p = united"),),
    ),
    Mutation(
        "all groups of a block in the slot of its first one",
        NHWC,
        _ROWS_CLUSTER,
        "where something has arrived already",
        (("exchange.h", "slot(cluster_rank(), i, count)", "slot(cluster_rank(), 0, count)"),),
    ),
    Mutation(
        "a team waits for the round before",
        NCHW,
        _TEAM,
        "",
        (("exchange.h", "while (v.word[3] != round + 1)", "while (v.word[3] < round)"),),
    ),
    Mutation(
        "a team's slots are the same in every round",
        NCHW,
        _TEAM,
        "deadlock",
        (("exchange.h", "(parity() * size() + of)", "of"),),
    ),
    Mutation(
        "a team's blocks are combined as they arrive",
        NCHW_F32,
        _TEAM_F32,
        "other bits",
        (
            (
                "exchange.h",
                "slot(rank(), i, room)",
                "slot(arrive(counter(room) + 1) % size(), i, room)",
            ),
            ("exchange.h", "store(counter(room), 0u);", "store(counter(room), 0u), store(counter(room) + 1, 0u);"),
        ),
    ),
    Mutation(
        "counters are left as they are",
        NCHW,
        _TEAM,
        "a counter is not zero again",
        (("exchange.h", "store(counter(room), 0u);", "return;"),),
    ),
    Mutation(
        "one table of channels for all rounds of a team",
        NCHW,
        _TEAM,
        "",
        (("nchw_resident.h", " + parity * a.table", ""),),
    ),
    Mutation(
        "slots are left as they are",
        NCHW,
        _TEAM,
        "a counter is not zero again",
        (("exchange.h", "store(slots_of(room) + i, Bits128{{0, 0, 0, 0}});", ""),),
    ),
    Mutation(
        "what was copied ahead is taken before it has come",
        NCHW,
        _TEAM,
        "",
        (("nchw_slice.h", "    copies_arrived();\n#pragma unroll", "#pragma unroll"),),
    ),
    Mutation(
        "the elements after the last vector one further",
        NCHW,
        replace(_BLOCK, skew=(1, 1, 1, 1)),
        "",
        (("nchw_slice.h", "vectors * vector + t - 16", "vectors * vector + t - 15"),),
    ),
    Mutation(
        "the elements after the last vector are forgotten",
        NCHW,
        replace(_BLOCK, skew=(1, 1, 1, 1)),
        "numbers are wrong",
        (("nchw_slice.h", "static_cast<int32_t>((length - head) % kVector) : 0;", "0 : 0;"),),
    ),
    Mutation(
        "the table of channels one further",
        NCHW,
        replace(_BLOCK, groups=1),
        "shared memory",
        (("affine.h", "table[c] = affine;", "table[c + 1] = affine;"),),
    ),
    Mutation(
        "the variance in one pass",
        NCHW,
        replace(_BLOCK, data="offset"),
        "numbers are wrong",
        (
            (
                "statistics.h",
                "squares[k % 2] = multiply_add(d - p.mean, d - p.mean, squares[k % 2]);",
                "squares[k % 2] = multiply_add(d, d, squares[k % 2]);",
            ),
            (
                "statistics.h",
                "p.m2 = squares[0] + squares[1];",
                "p.m2 = squares[0] + squares[1] - p.n * p.mean * p.mean;",
            ),
        ),
    ),
    Mutation(
        "epsilon outside of the root",
        NCHW,
        replace(_BLOCK, data="tiny"),
        "numbers are wrong",
        (("nchw_apply.h", "fast_reciprocal(p.n), epsilon));", "fast_reciprocal(p.n), 0.0f)) + epsilon;"),),
    ),
    Mutation(
        "the weight of a part is that of the other",
        NCHW,
        _CLUSTER,
        "numbers are wrong",
        (("statistics.h", "const float share = b.n *", "const float share = a.n *"),),
    ),
    Mutation(
        "ReLU swallows NaN",
        NCHW_F32,
        replace(_TEAM_F32, variant="block", positions=100, activation="relu", data="nan"),
        "NaN is not where it belongs",
        (
            (
                "nchw_apply.h",
                "if constexpr (epilogue == kPlain) return maximum(y, a.floor);",
                "if constexpr (epilogue == kPlain) return fmaxf(y, a.floor);",
            ),
            ("nchw_apply.h", "silu(y) : maximum(y, a.floor);", "silu(y) : fmaxf(y, a.floor);"),
        ),
    ),
    Mutation(
        "a warp reads its table of channels while it is filled",
        SMALL,
        BASELINE[SMALL][0],
        "race: ",
        (("nchw_warp.h", "warp_barrier();  // the table is filled", ""),),
    ),
    Mutation(
        "the second kernel does not wait for the first",
        SMALL,
        BASELINE[SMALL][1],
        "may not have written yet",
        (("nchw_split.h", "wait_for_previous();", ""),),
    ),
    Mutation(
        "the padding of a row is part of its last group",
        NHWC,
        replace(_ROWS, groups=1, group_channels=12),
        "NaN is not where it belongs",
        (("nhwc_statistics.h", "? sums[i] : 0.0f;", "? sums[i] : 0.0f * sums[i];"),),
    ),
    Mutation(
        "a tile is summed over what others still read of the one before",
        NHWC,
        Case(2, 2, 8, 1400, "nhwc", variant="split", device="blackwell"),
        "race: ",
        (("nhwc_split.h", "if (!Number<dtype>::kPivoted && begin > 0) barrier();", ""),),
    ),
    Mutation(
        "the residual of the neighbour",
        NHWC,
        _ROWS,
        "wrong",
        (("number.h", "Number<dtype>::narrow2(a + c, b + d);", "Number<dtype>::narrow2(a + c, b + c);"),),
    ),
    Mutation(
        "offsets of 32 bits",
        NHWC,
        Case(1, 2, 4, 40, "nhwc", variant="block", output_dtype="int8", pad=2**28 - 8, affine=0),
        "",
        (
            (
                "nhwc_patch.h",
                "+ begin + t.row) * pitch + t.channel;",
                "+ begin + t.row) * static_cast<int32_t>(pitch) % (int64_t{1} << 32) + t.channel;",
            ),
        ),
    ),
    Mutation(
        "slots of a team as far apart as this slab's groups",
        NHWC,
        Case(2, 40, 3, 30, "nhwc", variant="team"),
        "race: ",
        (("exchange.h", "const int room = room_of(), parts", "const int room = count, parts"),),
    ),
)


def mutated(changes: tuple[tuple[str, str, str], ...]) -> Path:
    """A copy of the headers with the changes. Raises ValueError where one does not apply."""
    texts = {path.name: path.read_text() for path in headers(KERNELS)}
    for name, before, after in changes:
        if texts[name].count(before) != 1:
            raise ValueError(f"{name} has {texts[name].count(before)} times, not once: {before}")
        texts[name] = texts[name].replace(before, after)
    digest = hashlib.sha256(repr((texts, [path.read_text() for path in headers(EMULATOR)])).encode()).hexdigest()[:16]
    folder = FOLDER / f"mutant-{digest}"
    if not folder.exists():
        FOLDER.mkdir(exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=FOLDER))
        (unfinished / "kernels").mkdir()
        for name, text in texts.items():
            (unfinished / "kernels" / name).write_text(text)
        shutil.copytree(EMULATOR, unfinished / "emulator")
        try:
            unfinished.rename(folder)
        except OSError:  # another process was faster
            shutil.rmtree(unfinished)
    return folder


def built(of: Instances, changes: tuple[tuple[str, str, str], ...] = (), vectors: int = 2) -> tuple[Library, Machine]:
    """The library with these instances in place of a source's."""
    folder = mutated(changes)
    flag = (*flags("-O1"), INSTRUMENTED, f"-I{folder / 'kernels'}", "-c")
    mutant = compiled("mutant", [of.code(vectors)], *flag, reads=[folder])
    others = [path for name, path in kernel_objects().items() if name != of.source]
    made = linked("libmutant", [mutant, *others, *emulator_objects()])  # first: its inline functions are everybody's
    return Library(made), Machine(made)


def findings(on: tuple[Library, Machine], case: Case) -> str:
    """What is said of a case under a few schedules, or an empty text."""
    if case.pad > 1 << 20:
        return far_findings(on, case)
    inputs = draw(case)
    first: bytes | None = None
    try:
        for schedule, seed in (("in order", 0), ("random", 1), ("skewed", 2), ("reversed", 0)):
            result = run(case, inputs, schedule, seed, on=on)
            assert isinstance(result, Run), result
            check(case, inputs, result)
            bits = np.ascontiguousarray(result.y).tobytes()
            if first is not None and bits != first:
                return f"other bits {schedule} than in order"
            first = bits
    except (LaunchError, AssertionError) as error:
        return str(error)
    return ""


def far_findings(on: tuple[Library, Machine], case: Case) -> str:
    try:
        check_far_apart(case.variant, on)
    except (LaunchError, AssertionError) as error:
        return str(error)
    return ""
