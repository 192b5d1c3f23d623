"""The results as a table, for a terminal and for plugins/README.md alike."""

from collections.abc import Sequence
from typing import Any

from scripts.gpu.phases import gigabytes
from scripts.gpu.results import case_of

HEAD = tuple("layer|x|type|computes|variant|µs|GB/s|of a copy|x torch|x compile|best|verdict".split("|"))
SHORT = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
DASH = "-"
DRIFT = 0.05  # of a copy's time within one case; medians of the same kernel differ by 1 to 2 % else


def rows(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """One for each case that was timed."""
    return [_row(row) for row in results["cases"].values() if "us" in row]


def markdown(results: dict[str, Any]) -> str:
    """The table with a line on what it was measured on, and one on what was checked."""
    cells = [HEAD, *rows(results)]
    wide = [max(len(row[i]) for row in cells) for i in range(len(HEAD))]
    lines = [_line(row, wide) for row in cells]
    rule = "|" + "|".join("-" * (w + 2) for w in wide) + "|"
    return "\n".join([heading(results), "", lines[0], rule, *lines[1:], "", summary(results)])


def heading(results: dict[str, Any]) -> str:
    device, versions = results["device"], results["versions"]
    return (
        f"{device['name']} (compute capability {device['compute_capability']}, {device['multiprocessors']} "
        f"multiprocessors), driver {device['driver']}, torch {versions['torch']}, {results['date']}; medians of CUDA "
        "graphs over buffers beyond the L2 cache."
    )


def summary(results: dict[str, Any]) -> str:
    checks, timed = results["checks"], rows(results)
    faulty = len({(f["check"], f["variant"]) for f in checks["faults"]})
    told = [f"{checks['ran']} checks against float64, {faulty} with faults"]
    tools = results["sanitizer"].get("tools", {})
    if tools:
        told.append("compute-sanitizer " + ", ".join(f"{tool} {found['status']}" for tool, found in tools.items()))
    else:
        told.append(f"compute-sanitizer did not run: {results['sanitizer'].get('reason', 'no time')}")
    promises = [said for row in results["cases"].values() for said in row["verdict"].values()]
    held = promises.count("held")
    told.append(f"{len(timed)} of {len(results['cases'])} shapes timed")
    told.append(f"{held} of {held + promises.count('missed')} targets held")
    unsteady = [row for row in results["cases"].values() if row.get("drift") and abs(row["drift"] - 1) > DRIFT]
    if unsteady:
        told.append(f"{len(unsteady)} of them on a GPU that changed its speed by more than {100 * DRIFT:.0f} %")
    if results["launch_us"]:
        told.append(f"an empty kernel takes {results['launch_us']:.1f} µs")
    return ". ".join([*told, *results["unfinished"]]) + "."


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    case = case_of(row)
    best = row.get("best", DASH)
    if best not in (DASH, row["selected"]):
        best = f"{best} {row['us'] / row['variants'][best]['us']:.2f}x"
    layout = "" if case.layout == "nchw" else " NHWC"
    bad = [name for name, said in row["verdict"].items() if said == "missed"]
    return (
        case.net,
        "x".join(map(str, case.shape)) + (f"/{case.groups}" if case.groups != 32 else ""),
        SHORT[case.dtype] + layout,
        case.epilogue,
        row["selected"],
        f"{row['us']:.1f}",
        f"{gigabytes(case, row['us']):.0f}",
        _ratio(row, "copy") + f" ({row['target']['ratio']:.2f})",
        _ratio(row, "eager"),
        _ratio(row, "compile"),
        best,
        f"missed: {', '.join(bad)}" if bad else "held",
    )


def _ratio(row: dict[str, Any], name: str) -> str:
    if f"{name}_us" not in row:
        return DASH
    return f"{row[f'{name}_us'] / row.get(f'{name}_beside_us', row['us']):.2f}"


def _line(cells: Sequence[str], wide: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(w) for cell, w in zip(cells, wide, strict=True)) + " |"
