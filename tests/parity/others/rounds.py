"""Others' cases through every form that can hold them and every runtime that is here, judged by the bound."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from onnx import inliner

from gn_deploy.around.write import write as write_site
from gn_deploy.errors import GnDeployError, UnavailableError
from gn_deploy.forms import FORMS
from gn_deploy.forms.base import DTYPES, GroupNormSite, Parameter
from gn_deploy.graph.normalize import normalize
from gn_deploy.graph.splice import Builder, Names
from gn_deploy.parity.pairing import Pair
from gn_deploy.parity.per_site import judge_arrays, low_precision_stores, settled
from gn_deploy.parity.promise import Promise
from gn_deploy.parity.status import Status
from gn_deploy.parity.tolerance import bounds
from gn_deploy.runtimes import RUNTIMES
from gn_deploy.runtimes.torch_eager import TorchModel, to_torch
from gn_deploy.sites import find
from gn_deploy.spec import GroupNormSpec
from tests.forms.writing import WRITTEN
from tests.parity.others.peers import Array, Peer

OPSETS = (21, 20, 22, 17)
"""Where a form is written: the first that it can be."""
BODIES = {"body of 18": 20, "body of 21": 21}
"""The function bodies that the ONNX specification gives for GroupNormalization, and the opsets they are taken at."""
FORMED = (*WRITTEN, *BODIES)
EVALUATED = ("contrib", "trt_plugins")
"""Forms without a kernel on a CPU."""
KNOWN = {
    ("openvino", "float64", Status.LOWPREC): "every form",  # its CPU plugin computes float64 in float32
    ("onnxruntime", "bfloat16", Status.NOTRUN): "every form",  # its CPU provider has few kernels for it
    ("onnxruntime", "float64", Status.NOTRUN): "instance_norm",  # there is no kernel of InstanceNormalization for it
}
"""(runtime, dtype, verdict) -> the form it is about."""
ONNX_RUNTIMES = ("onnx-reference", "onnxruntime", "openvino")
GIVEN = "as given"
MODULE = "module"


@dataclass(frozen=True, slots=True, eq=False)
class Check:
    """One case in one form on one runtime."""

    peer: Peer
    form: str
    runtime: str
    status: Status
    over: float
    """Error over bound; NaN when nothing was measured."""
    reason: str = ""
    expected_over: float = float("nan")
    """The same against the author's own answer, over the sum of both bounds; NaN when there is none."""


def one_pass(form: str, runtime: str) -> bool:
    """Where the variance is E[x^2] - E[x]^2: the specification's body whoever runs it, and so the op in ONNX Runtime,
    which has no kernel of its own for it."""
    return form in BODIES or (runtime == "onnxruntime" and form in ("native", "native18"))


def known(check: Check) -> bool:
    """What is not a pass and is known: told by its name in every verdict, and no form's doing."""
    if check.status is Status.UNSTABLE:
        return one_pass(check.form, check.runtime)
    return KNOWN.get((check.runtime, check.peer.spec.dtype, check.status), "") in ("every form", check.form)


def opset_of(form: str, spec: GroupNormSpec) -> int:
    """The opset at which the form holds the spec; 0 when it cannot."""
    if form in BODIES:
        op = "native" if BODIES[form] > 20 else "native18"
        return BODIES[form] if FORMS.require(op).legal(spec, BODIES[form]) and spec.rank != 2 else 0
    return next((o for o in OPSETS if FORMS.require(form).legal(spec, o)), 0)


def joint(items: Sequence[tuple[Peer, str]], opset: int) -> ir.Model:
    """One model for many cases: x0 -> y0, x1 -> y1, ..., scale and bias as initializers."""
    graph = ir.Graph([], [], nodes=[], opset_imports={"": opset}, name="many")
    model = ir.Model(graph, ir_version=10)
    for i, (peer, form) in enumerate(items):
        spec = peer.spec
        dtype, dims = DTYPES[spec.dtype], ir.Shape(peer.x.shape)
        x = ir.Value(name=f"x{i}", shape=dims, type=ir.TensorType(dtype))
        graph.inputs.append(x)
        held = [None if a is None else Parameter(array=a) for a in (peer.scale, peer.bias)]
        site = GroupNormSite(spec, "peer", f"gn{i}", x, x, held[0], held[1], ())
        builder = Builder(Names(model), f"gn{i}", opset)
        written = {"body of 18": "native18", "body of 21": "native"}.get(form, form)
        y = write_site(site, FORMS.require(written), builder)
        for value in builder.initializers:
            graph.register_initializer(value)
        graph.extend(builder.nodes)
        y.name, y.shape, y.dtype = f"y{i}", dims, dtype
        graph.outputs.append(y)
        graph.opset_imports.update(dict.fromkeys(builder.domains, 1))
        model.functions.update({key: body() for key, body in builder.functions.items()})
    if items[0][1] in BODIES:
        names = [("", "GroupNormalization")]
        proto = inliner.inline_selected_functions(ir.to_proto(model), names, inline_schema_functions=True)
        assert all(node.op_type != "GroupNormalization" for node in proto.graph.node)
        model = ir.from_proto(proto)
    return model


def rounds(
    peers: Sequence[Peer], forms: Iterable[str] = FORMED, runtimes: Iterable[str] = ONNX_RUNTIMES
) -> Iterator[Check]:
    """Every check there is. A form that cannot hold a case makes none; ``EVALUATED`` ones are evaluated by the ONNX
    standard's evaluator alone."""
    held = [(peer, form, opset_of(form, peer.spec)) for peer, form in itertools.product(peers, forms)]
    held = [row for row in held if row[2]]
    body = {form: form in BODIES for form in FORMED}

    def key(row: tuple[Peer, str, int]) -> tuple[str, int, bool, bool]:
        return (row[0].spec.dtype, row[2], row[1] in EVALUATED, body[row[1]])

    for (_, opset, evaluated, _), rows in itertools.groupby(sorted(held, key=key), key):
        items = [(peer, form) for peer, form, _ in rows]
        for runtime in runtimes:
            if not evaluated or runtime == "onnx-reference":
                yield from _together(items, opset, runtime)


def as_given(peers: Iterable[Peer], runtimes: Iterable[str] = ONNX_RUNTIMES) -> Iterator[Check]:
    """The authors' own models."""
    for peer, runtime in itertools.product([p for p in peers if p.model is not None], runtimes):
        assert peer.model is not None
        model = ir.from_proto(peer.model)
        names = [v.name for v in model.graph.inputs]
        feeds = {n: a for n, a in zip(names, (peer.x, peer.scale, peer.bias), strict=True) if n is not None}
        try:
            session = RUNTIMES.require(runtime).open(model)
            try:
                y = next(iter(session.run(feeds).values()))
                yield _judged(peer, GIVEN, runtime, y, session.precision, 0)
            finally:
                session.close()
        except GnDeployError as error:
            yield Check(peer, GIVEN, runtime, _ended(error), float("nan"), error.message)


def in_torch(peers: Iterable[Peer]) -> Iterator[Check]:
    """The cases on torch itself, as nn.GroupNorm in eager mode."""
    for peer in peers:
        spec = peer.spec
        module = torch.nn.GroupNorm(spec.num_groups, spec.num_channels, spec.epsilon)
        absent = np.ones(spec.num_channels, peer.x.dtype), np.zeros(spec.num_channels, peer.x.dtype)
        for parameter, given, neutral in zip(
            (module.weight, module.bias), (peer.scale, peer.bias), absent, strict=True
        ):
            parameter.data = to_torch(neutral if given is None else given)
        session = RUNTIMES.require("torch").open(TorchModel(module, ("x",), ("y",)))
        yield _judged(peer, MODULE, "torch", session.run({"x": peer.x})["y"], session.precision, 0)
        session.close()


def _together(items: Sequence[tuple[Peer, str]], opset: int, runtime: str) -> list[Check]:
    """All in one model; when the runtime refuses it, halves of it, so that what it refuses is found."""
    model = joint(items, opset)
    try:
        session = RUNTIMES.require(runtime).open(model)
        try:
            found = session.run({f"x{i}": peer.x for i, (peer, _) in enumerate(items)})
            precision = session.precision
        finally:
            session.close()
    except GnDeployError as error:
        if len(items) == 1:
            return [Check(*items[0], runtime, _ended(error), float("nan"), error.message)]
        half = len(items) // 2
        return _together(items[:half], opset, runtime) + _together(items[half:], opset, runtime)
    values = {v.name: v for v in [*model.graph.inputs, *model.graph.outputs]}
    checks = []
    for i, (peer, form) in enumerate(items):
        x, y = values[f"x{i}"], values[f"y{i}"]
        site = GroupNormSite(peer.spec, form, f"gn{i}", x, y, None, None, ())
        stores = low_precision_stores(Pair(site, peer.spec, x, y, form, "order"), peer.spec.dtype)
        checks.append(_judged(peer, form, runtime, found[f"y{i}"], precision, stores))
    return checks


def _ended(error: GnDeployError) -> Status:
    return Status.NOTRUN if isinstance(error, UnavailableError) else Status.CRASH


def _judged(peer: Peer, form: str, runtime: str, y: Array, precision: str, stores: int) -> Check:
    promise = Promise(written=(peer.spec.dtype,)).heard(precision)
    found = judge_arrays(peer.x, y, peer.spec, peer.scale, peer.bias, case=peer.name, promise=promise, stores=stores)
    (told,), _ = settled(found, promise)
    against = float("nan")
    if peer.expected is not None and y.shape == peer.expected.shape:
        limits = bounds(peer.x, peer.spec, peer.scale, peer.bias, stores=stores)
        own = bounds(peer.x, peer.spec, peer.scale, peer.bias)
        error = np.abs(y.astype(np.float64) - peer.expected.astype(np.float64))
        against = float((error / (limits.two_pass + own.two_pass)).max())
    over = told.metrics.error_over_bound if told.metrics else float("nan")
    return Check(peer, form, runtime, told.status, over, told.reason, against)


def expected_over(peer: Peer) -> float:
    """The author's own answer against the oracle, over its bound."""
    assert peer.expected is not None
    limits = bounds(peer.x, peer.spec, peer.scale, peer.bias)
    return float((np.abs(peer.expected.astype(np.float64) - limits.reference) / limits.two_pass).max())


def read_back(items: Sequence[tuple[Peer, str]], opset: int) -> list[str]:
    """What find() says otherwise than what was written, in words."""
    sites = {site.output.name: site for site in find(normalize(joint(items, opset))).sites}
    wrong = []
    for i, (peer, form) in enumerate(items):
        site = sites.get(f"y{i}")
        if site is None:
            wrong.append(f"{peer.name} as {form}: not found")
            continue
        said = (site.spec.num_groups, site.spec.num_channels, np.float32(site.spec.epsilon))
        meant = (peer.spec.num_groups, peer.spec.num_channels, np.float32(peer.spec.epsilon))
        if said != meant:
            wrong.append(f"{peer.name} as {form}: {said}, not {meant}")
    return wrong
