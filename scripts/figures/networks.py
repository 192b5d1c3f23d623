"""One GroupNorm of a real model wrong, found and named by what the running network shows: 20 minutes on two cores.

Needs gn-deploy[real-models]; a model whose package is missing is left out with a word. Every model is measured in a
process of its own. To go on where an earlier run was stopped:

    python -m scripts.figures.networks --keep FOLDER [RECIPE ...]
"""

import contextlib
import io
import json
import logging
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

import gn_deploy as gn
from gn_deploy.decision import Rejected
from gn_deploy.exporters.recipe import Recipe, load_recipe
from gn_deploy.faults import FAULTS
from gn_deploy.graph.cut import tap
from gn_deploy.graph.normalize import normalize
from gn_deploy.mutation.effect import EFFECTIVE, Exact, read_by
from gn_deploy.mutation.seeding import seed
from gn_deploy.parity.cases import Array, Case, input_specs
from gn_deploy.parity.end_to_end import PASS_RATIO, EndToEnd
from gn_deploy.parity.in_place import evidence_in_place
from gn_deploy.parity.inputs import fed_to
from gn_deploy.parity.oracle import open_oracle
from gn_deploy.parity.pairing import Pair, pair
from gn_deploy.runtimes import RUNTIMES
from gn_deploy.sites import find
from scripts.figures import percent, versions
from scripts.pages import table

MODELS = Path(__file__).parents[2] / "models"
RECIPES = {
    "digits_resnet": 3,
    "monai_unet3d": 2,
    "monai_segresnet": 1,
    "smp_fpn": 2,
    "deformable_detr": 1,
    "timm_resnet50_gn": 1,
    "timm_poolformer": 1,
    "wav2vec2": 1,
}
"""Recipe -> GroupNorms that are made wrong, one at a time, spread over the depth of the network."""
LARGER = {
    "diffusion_unet": 1,
    "torchvision_fcos": 1,
    "mask2former": 1,
    "timm_bit": 1,
    "sd_vae": 1,
    "sd_unet": 1,
}
"""The same of recipes that take as long again, all together, and are measured when they are named."""
OPSET = 20  # torch's own choice; the spelling there is InstanceNormalization between reshapes
PEERS = {
    "noise ratio > 4": "the whole network against float64, in units of what rounding does to it; ours, end to end",
    "allclose 1e-3": "numpy.allclose with atol = rtol = 1e-3",
    "torch verify": "torch.onnx's own check: absolute below 5e-3 and relative below 0.1",
    "cosine 0.997": "Polygraphy's cosine similarity of at least 0.997",
}
"""Question asked of the network's outputs, wrong against right on the same runtime -> what it is."""


@dataclass
class Tally:
    """Faults of one row of a table."""

    seeded: int = 0
    effective: int = 0
    found: int = 0
    named: int = 0
    peers: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        self.seeded += other.seeded
        self.effective += other.effective
        self.found += other.found
        self.named += other.named
        self.peers.update(other.peers)
        self.missed += other.missed

    def cells(self) -> list[object]:
        shares = [percent(self.peers[peer], self.effective) for peer in PEERS]
        found, named = (f"{n} ({percent(n, self.effective)} %)" for n in (self.found, self.named))
        return [self.seeded, self.effective, found, named, *shares]


class Recording:
    """ONNX Runtime; the values of the last run are kept."""

    name = "onnxruntime"

    def __init__(self) -> None:
        self.values: dict[str, Array] = {}
        self._runtime = RUNTIMES.require(self.name)

    def probe(self) -> Any:
        return self._runtime.probe()

    def open(self, model: Any, *, precision: str | None = None) -> "Recorded":
        return Recorded(self._runtime.open(model, precision=precision), self)

    def build(self, model: Path, out: Path, **options: Any) -> Any:
        raise NotImplementedError


class Recorded:
    """A session of it."""

    def __init__(self, session: Any, owner: Recording) -> None:
        self._session, self._owner = session, owner
        self.runtime, self.precision = session.runtime, session.precision

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        self._owner.values = self._session.run(feeds)
        return self._owner.values

    def close(self) -> None:
        self._session.close()


class Network:
    """A real model, exported and written as ONNX Runtime computes it right, with what it says unseeded."""

    def __init__(self, name: str) -> None:
        recipe = load_recipe(MODELS / f"{name}.py")
        self.model = exported(recipe)
        self.sites = find(self.model).sites
        self.pairs = pair(self.model, self.sites, self.model, ()).pairs
        inputs = [s.name for s in input_specs(self.model)]
        feeds = dict(zip(inputs, map(np.asarray, recipe.inputs.values()), strict=True))
        (self.case,) = fed_to(self.model, self.model, [Case("example", feeds, "user", True)])
        self.runtime = Recording()
        evidence = evidence_in_place(self.pairs, self.model, self.runtime, [self.case])
        self.values = {**self.case.feeds, **self.runtime.values}
        self.alarms = [p.site.name for p, e in evidence.items() if any(one.status.broken for one in e)]
        self.values |= self.read_by_sites()
        self.outputs = [str(v.name) for v in self.model.graph.outputs]
        self.whole = EndToEnd(self.model, open_oracle(self.model))
        self.noise_ratio = max(self.ratios(self.values))

    def read_by_sites(self) -> dict[str, Array]:
        """What the sites read with everything around them, where only some of that is judged at once."""
        names = {str(v.name) for site in self.sites for v in read_by(site)} - self.values.keys()
        if not names:
            return {}
        session = self.runtime.open(tap(self.model, sorted(names)))
        values = session.run(self.case.feeds)
        session.close()
        return {name: values[name] for name in names}

    def ratios(self, values: Mapping[str, Array]) -> list[float]:
        verdicts = (
            self.whole.judge("onnxruntime", name, {self.case.name: values[name]}, [self.case], types="float32")
            for name in self.outputs
        )
        return [float("inf") if np.isinf(v.metrics.error_over_bound) else v.noise_ratio for v in verdicts if v.metrics]

    def chosen(self, count: int) -> list[Pair]:
        """Evenly over the depth."""
        seen = [p for p in self.pairs if str(p.output.name) in self.values]
        at = np.linspace(0, len(seen) - 1, count + 2)[1:-1] if len(seen) > count else range(len(seen))
        return [seen[round(i)] for i in at]

    def seeded(self, wrong: Pair, fault: str) -> tuple[set[str], set[str]] | Rejected:
        """The GroupNorms that were judged broken, and the peers that would have complained."""
        model = seed(self.model, wrong.site, fault)
        if isinstance(model, Rejected):
            return model
        pairs = pair(self.model, self.sites, model, ()).pairs  # all of them by names: a site need not be recognised
        after = self.after(wrong)
        evidence = evidence_in_place([p for p in pairs if p.site in after], model, self.runtime, [self.case])
        broken = {p.site.name for p, e in evidence.items() if any(one.status.broken for one in e)}
        return broken, self.complaints(self.runtime.values)

    def after(self, wrong: Pair) -> set[object]:
        """The site itself and those that its answer reaches; the others are fed what they were fed before."""
        reached = {wrong.output}
        for node in self.model.graph:
            if any(v in reached for v in node.inputs):
                reached.update(node.outputs)
        return {wrong.site} | {p.site for p in self.pairs if p.input in reached}

    def complaints(self, values: Mapping[str, Array]) -> set[str]:
        told = {"noise ratio > 4"} if max(self.ratios(values)) > PASS_RATIO else set()
        for name in self.outputs:
            right, wrong = self.values[name].astype(np.float64), values[name].astype(np.float64)
            off = np.abs(right - wrong)
            told |= {"allclose 1e-3"} if not np.allclose(wrong, right, 1e-3, 1e-3) else set()
            relative = off / np.maximum(np.abs(right), 1e-7)  # torch.onnx divides so
            told |= {"torch verify"} if off.max() >= 5e-3 or relative.max() >= 0.1 else set()
            size = np.linalg.norm(right) * np.linalg.norm(wrong)
            told |= {"cosine 0.997"} if size and (right * wrong).sum() / size < 0.997 else set()
        return told

    def close(self) -> None:
        self.whole.close()


def exported(recipe: Recipe) -> ir.Model:
    logging.disable(logging.CRITICAL)
    try:
        with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            inputs = tuple(recipe.inputs.values())
            model = torch.onnx.export(recipe.module, inputs, opset_version=OPSET, dynamo=True).model
    finally:
        logging.disable(logging.NOTSET)
    return normalize(gn.lower(model, "ort-cpu", verify=False).model)


def trials(network: Network, count: int) -> Iterator[tuple[str, Pair, float | Rejected]]:
    """Each fault in each chosen site, with how far it moves the exact answer there."""
    for wrong in network.chosen(count):
        call = Exact(wrong.site, network.case.name, network.values)
        for name, fault in FAULTS.items():
            yield name, wrong, call.moved(fault)


def measured(name: str) -> dict[str, Any]:
    """One model as plain data: GroupNorms, false alarms, the noise ratio unseeded, a tally for every fault."""
    start = time.perf_counter()
    network = Network(name)
    tallies = {fault: Tally() for fault in FAULTS}
    for fault, wrong, moved in trials(network, (RECIPES | LARGER)[name]):
        if not isinstance(moved, Rejected):
            try_out(network, fault, wrong, moved, tallies[fault])
    network.close()
    facts = {"sites": len(network.sites), "alarms": network.alarms, "noise": network.noise_ratio}
    print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    plain = {fault: {f.name: getattr(tally, f.name) for f in fields(tally)} for fault, tally in tallies.items()}
    return facts | {"faults": plain}


def try_out(network: Network, fault: str, wrong: Pair, moved: float, tally: Tally) -> None:
    if moved <= EFFECTIVE:
        tally.seeded += 1
        return
    result = network.seeded(wrong, fault)
    if isinstance(result, Rejected):
        return
    broken, complaints = result
    named = broken == {wrong.site.name}
    tally.seeded += 1
    tally.effective += 1
    tally.found += wrong.site.name in broken
    tally.named += named
    tally.peers.update(complaints)
    if not named:
        others = ", ".join(sorted(broken - {wrong.site.name}))
        blamed = f", and broken: {others}" if others else ""
        tally.missed.append(f"{fault} in {wrong.site.module or wrong.site.name} moves it by {moved:.1g}{blamed}")


def collected(names: Sequence[str], folder: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """What ``folder`` lacks is measured, each model in a process of its own; and what was left out, with the reason."""
    left = []
    for name in names:
        file = folder / f"{name}.json"
        if not file.exists():
            command = [sys.executable, "-m", "scripts.figures.networks", "--measure", name]
            ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, cwd=MODELS.parent)
            if ended.returncode:
                left.append(f"`{name}`: {ended.stdout.strip() or 'it failed'}")
                continue
            file.write_text(ended.stdout)
    return {n: json.loads((folder / f"{n}.json").read_text()) for n in names if (folder / f"{n}.json").exists()}, left


def section(names: Sequence[str] = tuple(RECIPES), folder: Path | None = None) -> str:
    if folder is None:
        with tempfile.TemporaryDirectory() as empty:
            return section(names, Path(empty))
    found, left = collected(names, folder)
    by_fault = {name: Tally() for name in FAULTS}
    total = Tally()
    rows: list[list[object]] = []
    missed: list[str] = []
    for name, facts in found.items():
        own = Tally()
        for fault, plain in facts["faults"].items():
            tally = Tally(**{**plain, "peers": Counter(plain["peers"])})
            for row in (own, by_fault[fault]):
                row.add(tally)
        total.add(own)
        missed += [f"- `{name}`: {what}" for what in own.missed]
        rows.append([f"`{name}`", facts["sites"], len(facts["alarms"]), *own.cells()])
    sites, alarms = (sum(int(str(row[i])) for row in rows) for i in (1, 2))
    rows.append([f"all {len(rows)}", sites, alarms, *total.cells()])
    columns = ["seeded", "effective", "found", "named", *(f"{peer}, %" for peer in PEERS)]
    faults = [[name, *tally.cells()] for name, tally in by_fault.items() if tally.seeded]
    missed = missed or ["No effective fault was missed or blamed on another GroupNorm."]
    highest = max(facts["noise"] for facts in found.values())
    return "\n\n".join([
        table([["model", "GroupNorms", "false alarms", *columns], *rows]),
        table([["fault", *columns], *faults]),
        "\n".join(missed),
        f"The largest noise ratio of a network without a fault is {highest:.1g}.",
        *(f"Left out: {what}" for what in left),
        versions("torch", "onnxruntime", "onnx"),
    ])  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["--measure"]:
        try:
            print(json.dumps(measured(arguments[1])))
        except gn.GnDeployError as error:
            print(error)
            return 1
        return 0
    folder = Path(arguments[1]) if arguments[:1] == ["--keep"] else None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    print(section(arguments[2 if folder else 0 :] or tuple(RECIPES), folder))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
