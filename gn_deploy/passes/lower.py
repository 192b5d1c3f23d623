"""The pass that writes every Group Normalization of a model the way a target takes it best."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from gn_deploy.around.write import own_part
from gn_deploy.decision import Accepted, Decision, Rejected
from gn_deploy.errors import InputError
from gn_deploy.forms import FORMS
from gn_deploy.forms.base import Form, GroupNormSite, NearMiss
from gn_deploy.graph.cut import cut
from gn_deploy.graph.io import sort
from gn_deploy.graph.provenance import stamp_model
from gn_deploy.graph.splice import Names, dying_with
from gn_deploy.passes.opset import change_opset, may_change
from gn_deploy.passes.quantize import quantized
from gn_deploy.passes.rewrite import drop_uncalled, in_copy, last_node, moved, rewrite
from gn_deploy.sites import find, opset_of
from gn_deploy.spec import GroupNormSpec
from gn_deploy.targets import AUTO, Target

_HINT = "lower the file as it was before it was converted: --target onnx+native converts scale and bias with the opset"
_RANKED = ("native", "plugin", "trt_plugins")
"""Forms that are written with one more axis where the target normalizes rank 3 and more."""
_QUANTIZING = ("plugin", "trt_plugins", AUTO)
Verify = Callable[[GroupNormSite, ir.Model, ir.Model], Decision]
"""Judges a rewrite: the site, its region cut out as it was, and as it would be."""


@dataclass(frozen=True, slots=True)
class SiteDecision:
    """What was decided for one site."""

    site: str
    form: str
    """The form it was found in."""
    wrote: str | None
    """The form it was written in; None when it was left as it was."""
    decision: Decision
    spec: GroupNormSpec
    module: str = ""
    source: str = ""
    because: str = ""
    """Why this form, where the target chooses between TensorRT's own op and the plugin."""


@dataclass
class Lowered(ir.passes.PassResult):
    """The pass result, with the decision for each site and the look-alikes that were left alone."""

    decisions: tuple[SiteDecision, ...] = ()
    near_misses: tuple[NearMiss, ...] = ()


@dataclass(frozen=True, slots=True)
class _Plan:
    """The form chosen for a site, the layer of the site it is to write, and the reasons met on the way."""

    site: GroupNormSite
    form: Form | None
    decision: Decision
    layer: GroupNormSite
    because: str = ""


class LowerGroupNorm(ir.passes.InPlacePass):
    """Rewrites what the target takes, leaves alone what cannot be proved, and says why for each site.

    1. Forms are tried in the target's order of preference; the first that ONNX and the target allow is written.
    2. The opset is raised, or lowered, only for a form that needs it, when every other node provably keeps its meaning.
    3. With ``verify``, a rewrite that it rejects is not made.
    4. Running it twice changes nothing the second time.

    Raises InputError for a GroupNormalization node that ONNX does not allow.
    """

    def __init__(self, target: Target | str, *, verify: Verify | None = None) -> None:
        super().__init__()
        self.target = Target.parse(target) if isinstance(target, str) else target
        self.verify = verify

    def call(self, model: ir.Model) -> Lowered:
        found = find(model)
        sites = found.sites
        for site in sites:
            if site.invalid:
                raise InputError(site.invalid, _HINT)
        before = opset_of(model)
        plans, opset = self._plan(model, sites)
        plans = [self._verified(model, plan, opset) for plan in plans]
        if opset != before and not self._may_change(model, opset, plans):
            plans = [self._verified(model, plan, before) for plan in self._plan(model, sites, changing=False)[0]]
            opset = before
        names = Names(model)
        now: dict[ir.Value, ir.Value] = {}  # a site may read what the rewrite of an earlier one replaced
        unsorted = False
        for plan in plans:
            if plan.form is not None:
                site = moved(plan.layer, now)
                at = _after(site, before, opset)
                new = rewrite(site, plan.form, names, at, self._min_rank, model)
                unsorted = unsorted or len(new) > 1
                now |= new
        changed = any(plan.form is not None for plan in plans)
        if unsorted:
            sort(model)
        if changed:
            drop_uncalled(model)
            if opset != before:
                change_opset(model, opset)
            stamp_model(model, str(self.target))
        changed = bool(self.target.form in _QUANTIZING and quantized(model)) or changed
        return Lowered(model, changed, tuple(map(_told, plans)), found.near_misses)

    def decide(self, model: ir.Model, sites: Sequence[GroupNormSite]) -> tuple[SiteDecision, ...]:
        """What ``call`` would do with ``sites`` of ``model`` if every rewrite were proved; changes nothing."""
        return tuple(map(_told, self._plan(model, sites)[0]))

    @property
    def _min_rank(self) -> int:
        return 3 if self.target.runtime in ("tensorrt", "tensorrt-rtx") else 2  # TensorRT normalizes rank 3 and more

    def _plan(
        self, model: ir.Model, sites: Sequence[GroupNormSite], *, changing: bool = True
    ) -> tuple[list[_Plan], int]:
        """A form for each site, and the opset that all of them together need."""
        current = opset_of(model)
        lowest = highest = current
        if changing:
            # Sites of the op whose meaning changed are rewritten below, so they do not stand in the way.
            gone = _gone(site.bare for site in sites)
            firsts = [(f, s.bare.spec) for s in sites for f in self._candidates(s)[:1]]
            for opset in {_nearest_opset(form, spec, current) for form, spec in firsts} - {current}:
                if may_change(model, opset, gone):
                    lowest, highest = min(lowest, opset), max(highest, opset)
        plans = [self._choose(site, current, range(lowest, highest + 1), model) for site in sites]
        own = [(p.form, own_part(p.layer.spec, p.form.fuses)) for p in plans if p.form and p.site.opset == current]
        needed = {current} | {_nearest_opset(form, spec, current) for form, spec in own}
        opset = max(needed) if max(needed) > current else min(needed)
        if opset != current and not self._may_change(model, opset, plans):
            return self._plan(model, sites, changing=False)
        return plans, opset

    def _candidates(self, site: GroupNormSite) -> list[Form]:
        return [FORMS.require(name) for name in self.target.preference(site.spec, _positions(site))]

    def _choose(self, site: GroupNormSite, current: int, allowed: range, model: ir.Model) -> _Plan:
        """The first form that may be written, for the widest layer of the site that it computes by itself."""
        if site.invalid:
            return _Plan(site, None, Rejected(site.invalid), site.bare)
        if site.opset != current:  # a function with an import of its own, which nothing changes
            current, allowed = site.opset, range(site.opset, site.opset + 1)
        reasons: list[str] = []
        best = self.target.why(site.spec, _positions(site))
        for form in self._candidates(site):
            for layer in site.layers:
                if layer.inner is not None and not layer.spec.around <= form.fuses:
                    continue
                spec = own_part(layer.spec, form.fuses)
                opset = _nearest_opset(form, spec, current)
                takes = self.target.takes(form.name, spec)
                legal = form.legal(spec, opset) if opset in allowed else may_change(model, opset, _gone([layer]))
                refused = next((d for d in (takes, legal) if not d), None)
                if refused is None and opset not in allowed:
                    refused = Rejected(f"needs opset {opset}")
                if refused is not None:
                    reasons += [f"{form.name}: {refused.reason}"] * (layer.inner is None)
                    continue
                why = f" ({'; '.join([*reasons, *filter(None, [best])])})" if reasons or best else ""
                verb = "raised" if opset > current else "lowered"
                changed = f", opset {verb} from {current} to {opset}" if opset != current else ""
                as_found = form.name == site.form and layer.inner is None and spec == layer.spec
                if as_found and not site.notes and not self._needs_rank(spec, form):
                    return _Plan(site, None, Accepted(f"already written as {form.name}{why}"), layer, best)
                return _Plan(site, form, Accepted(f"written as {form.name}{changed}{why}"), layer, best)
        return _Plan(site, None, Rejected(f"left as {site.form}: {'; '.join(reasons)}"), site.bare)

    def _needs_rank(self, spec: GroupNormSpec, form: Form) -> bool:
        return form.name in _RANKED and spec.rank is not None and spec.rank < self._min_rank

    def _verified(self, model: ir.Model, plan: _Plan, opset: int) -> _Plan:
        if plan.form is None or self.verify is None:
            return plan
        site, form = plan.layer, plan.form
        before = cut(model, [site.input, *site.runtime_inputs], [site.output])
        after = before.clone()
        before.graph.opset_imports[""] = after.graph.opset_imports[""] = site.opset
        copy = in_copy(site, after)
        opset = _after(site, opset_of(model), opset)
        rewrite(copy, form, Names(after), opset, self._min_rank, after)
        after.graph.opset_imports[""] = opset
        decision = self.verify(site, before, after)
        if decision:
            return plan
        reason = f"left as {site.form}: {form.name} was not proved equal: {decision.reason}"
        return replace(plan, form=None, decision=Rejected(reason))

    def _may_change(self, model: ir.Model, opset: int, plans: Sequence[_Plan]) -> Decision:
        for form, layer in [(p.form, p.layer) for p in plans if p.form is not None]:
            if layer.opset == opset_of(model) and not (legal := form.legal(own_part(layer.spec, form.fuses), opset)):
                return legal
        return may_change(model, opset, _gone(p.layer for p in plans if p.form is not None))


def _told(plan: _Plan) -> SiteDecision:
    site = plan.site
    wrote = plan.form.name if plan.form else None
    return SiteDecision(site.name, site.form, wrote, plan.decision, site.spec, site.module, site.source, plan.because)


def _positions(site: GroupNormSite) -> int | None:
    """Elements of x for each sample and channel; None where a size is only known at run time."""
    if site.input.shape is None or site.spec.rank is None:
        return None
    axes = range(1, len(site.input.shape))
    sizes = [site.input.shape[i] for i in axes if i != site.spec.channel_axis % len(site.input.shape)]
    return math.prod(s for s in sizes if isinstance(s, int)) if all(isinstance(s, int) for s in sizes) else None


def _gone(sites: Iterable[GroupNormSite]) -> frozenset[ir.Node]:
    """What disappears when ``sites`` are written anew; what they read is still read."""
    sites = tuple(sites)
    held = {p.value for site in sites for p in (site.scale, site.bias) if p and p.value is not None}
    read = {value for site in sites for value in (site.input, *site.runtime_inputs)}
    return dying_with(map(last_node, sites), held | read)


def _after(site: GroupNormSite, before: int, opset: int) -> int:
    """The opset where ``site`` stands once the model has been taken from ``before`` to ``opset``."""
    return opset if site.opset == before else site.opset


def _nearest_opset(form: Form, spec: GroupNormSpec, current: int) -> int:
    """The opset nearest to ``current`` at which ONNX allows the form; ``current`` where there is none."""
    lowest = form.min_opset(spec)
    if current < lowest:
        return lowest
    return next((opset for opset in range(current, lowest - 1, -1) if form.legal(spec, opset)), current)
