"""Who agrees with whom, and who is right."""

import numpy as np
import pytest

from gn_deploy import api
from gn_deploy.diagnosis.deployed import Deployed, deployed
from gn_deploy.diagnosis.vote import camps, votes
from gn_deploy.parity.report import Metrics, OutputVerdict, ParityReport, RuntimeVerdict, SiteVerdict
from gn_deploy.parity.status import Status
from gn_deploy.parity.subject import find_sites
from gn_deploy.runtimes.onnx_reference import ONNX_REFERENCE
from tests.diagnosis.networks import Fusing, Rounding, model, network, normal

FAR = Metrics(9.0, 1.0, 1.0, 0.5, 1e6)


def report(*labels: str, absent: str = "", **parts: object) -> ParityReport:
    ran = [RuntimeVerdict(n, Status.NOTRUN if n == absent else Status.FAIL) for n in labels]
    return ParityReport("a", "b", tuple(ran), **{"sites": (), **parts})  # type: ignore[arg-type]


def test_camps_hold_those_who_agree_with_everybody_in_them() -> None:
    at = {"a": 0.0, "b": 1.0, "c": 5.0, "d": 5.5, "e": 0.9, "f": 2.0}
    made = camps(list(at), lambda one, other: abs(at[one] - at[other]) <= 1)
    assert made == (("a", "b", "e"), ("c", "d"), ("f",))


def voters() -> list[Deployed]:
    return [
        Deployed("one", "onnx-reference", ONNX_REFERENCE.open),
        Deployed("fusing", "onnxruntime", Fusing().open),
        Deployed("two", "onnx-reference", ONNX_REFERENCE.open),
    ]


def test_one_alone_is_wrong_by_the_oracle() -> None:
    what = model()
    broken = (OutputVerdict("y", "fusing", Status.FAIL, "normal", FAR),)
    seen = report("one", "fusing", "two", outputs=broken)
    (vote,) = votes(seen, what, what, normal(what), voters())
    assert (vote.place, vote.case) == ("y", "normal")
    assert vote.camps == (("one", "two"), ("fusing",))
    assert vote.right == ("one", "two")


def test_the_majority_may_be_wrong() -> None:
    what = model()
    broken = (OutputVerdict("y", "fusing", Status.FAIL, "normal", FAR),)
    who = [voters()[0], voters()[1], Deployed("also", "onnxruntime", Fusing().open)]
    (vote,) = votes(report("one", "fusing", "also", outputs=broken), what, what, normal(what), who)
    assert vote.camps == (("fusing", "also"), ("one",))
    assert vote.right == ("one",)


def test_a_group_norm_is_voted_on_alone() -> None:
    what = model()
    site = find_sites(what)[0]
    broken = (SiteVerdict(site.name, "low", Status.FAIL, "probe normal", FAR),)
    who = [*voters(), Deployed("low", "onnxruntime", Rounding("InstanceNormalization", "float16").open)]
    (vote,) = votes(report("one", "fusing", "two", "low", sites=broken), what, what, (), who)
    assert (vote.place, vote.case) == (site.module or site.name, "normal")
    assert vote.camps == (("one", "fusing", "two"), ("low",))
    assert vote.right == ("one", "fusing", "two")


def test_of_two_nobody_is_alone_and_an_absent_one_does_not_count() -> None:
    what = model()
    broken = (OutputVerdict("y", "fusing", Status.FAIL, "normal", FAR),)
    seen = report("one", "fusing", "two", absent="two", outputs=broken)
    assert votes(seen, what, what, normal(what), voters()) == ()


def test_three_runtimes_vote_in_a_comparison_that_broke() -> None:
    pytest.importorskip("onnxruntime")
    a = network()

    def change(weights: dict[str, np.ndarray], nodes: list[object]) -> None:
        weights["fc"][:, 0] *= 1.01

    labels = ["onnxruntime", "onnx-reference", "ort-cpu"]
    found = api.compare(a, network(change), runtimes=labels, isolate=False)
    (vote,) = found.votes
    assert vote.camps == (tuple(labels),), "they agree with each other"
    assert vote.right == (), "and are all wrong: it is the model"
    assert api.compare(a, a, runtimes=labels, isolate=False).votes == ()


def test_a_precision_that_was_asked_for_is_kept() -> None:
    (one,) = deployed(["openvino:bf16"])
    assert (one.label, one.runtime, one.asked) == ("openvino:bf16", "openvino", "bfloat16")
