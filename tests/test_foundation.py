"""Errors, decisions, registry, spec, targets: the words everything else is said in."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gn_deploy.decision import Accepted, Rejected
from gn_deploy.errors import ExitCode, GnDeployError, InputError, UnavailableError
from gn_deploy.registry import Registry, Unavailable
from gn_deploy.spec import Activation, GroupNormSpec
from gn_deploy.targets import DTYPES, RUNTIMES, Target

TARGETS = st.builds(
    Target,
    st.sampled_from(RUNTIMES),
    st.none() | st.from_regex(r"\d{1,2}(\.\d{1,2})?", fullmatch=True),
    st.none() | st.sampled_from(sorted(DTYPES)),
    st.none() | st.sampled_from(["native", "instance_norm"]),
)


@given(TARGETS)
def test_parse_and_str_are_inverses(target: Target) -> None:
    assert Target.parse(str(target)) == target


@pytest.mark.parametrize(
    ("text", "hint"),
    [("tensort", "did you mean 'tensorrt'"), ("ort-cpu:fp61", "fp16"), ("", "known: onnx"), ("onnx+", "onnx")],
)
def test_unknown_targets_name_the_nearest(text: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        Target.parse(text)
    assert hint in caught.value.hint


def test_rules_of_tensorrt() -> None:
    one, many = GroupNormSpec(1, 8), GroupNormSpec(4, 8)
    for name in ("tensorrt", "tensorrt-rtx"):
        target = Target.parse(name)
        assert target.preference(one) == ("layer_norm",)
        assert target.preference(many)[0] == "native"
        assert "4756" in target.takes("native", one).reason
        assert target.takes("native", many)
    old, new = Target.parse("tensorrt@10.8"), Target.parse("tensorrt@10.9")
    assert "10.8" in old.takes("native", many).reason
    assert old.takes("instance_norm", many)
    assert new.takes("native", many)


def test_no_cpu_target_prefers_the_one_pass_op() -> None:
    for name in ("ort-cpu", "ort-cuda", "openvino", "onnx"):
        assert Target.parse(name).preference(GroupNormSpec(4, 8))[0] == "instance_norm"
    assert Target.parse("onnx+native").preference(GroupNormSpec(4, 8)) == ("native",)


PAYS: dict[str, dict[str, object]] = {
    "instance normalization": {"num_groups": 1},
    "a sum before the statistics": {"residual": True},
    "scale and shift": {"scale_shift": True},
    "gelu is a kernel more": {"activation": Activation.GELU},
    "mish": {"activation": Activation.MISH},
    "hardswish": {"activation": Activation.HARDSWISH},
    "channels last": {"channel_axis": -1},
    "in float32": {"dtype": "float16", "wide_affine": True},
    "3-D": {"rank": 5},
}


@pytest.mark.parametrize("reason", PAYS)
def test_the_plugin_is_chosen_where_tensorrt_falls_apart_and_says_why(reason: str) -> None:
    plain = GroupNormSpec(8, 64, rank=4)
    target = Target.parse("tensorrt:fp16+auto")
    for kept in (plain, replace(plain, activation=Activation.SILU), replace(plain, dtype="float16")):
        assert target.preference(kept) == Target.parse("tensorrt").preference(kept)
        assert "one kernel or two, as far as the sizes are known" in target.why(kept)
    wanted = replace(plain, **PAYS[reason])  # type: ignore[arg-type]
    assert target.preference(wanted)[0] == "plugin"
    assert target.preference(wanted)[1:] == Target.parse("tensorrt").preference(wanted)
    assert reason in target.why(wanted)
    assert Target.parse("tensorrt+plugin").preference(plain) == ("plugin",)
    assert Target.parse("tensorrt+plugin").why(plain) == ""


def test_the_plugin_is_chosen_for_groups_larger_than_a_block_holds() -> None:
    """8 channels of 78 x 78 in float16 are 97,344 bytes, of 79 x 79 99,856: measured on RTX, 1 kernel and 5."""
    spec = GroupNormSpec(8, 64, rank=4, dtype="float16")
    target = Target.parse("tensorrt+auto")
    assert target.preference(spec, 78 * 78)[0] == "native"
    assert target.preference(spec, 79 * 79)[0] == "plugin"
    assert "98 KiB" in target.why(spec, 79 * 79)
    assert target.preference(replace(spec, dtype="float32"), 78 * 78)[0] == "plugin"
    assert target.preference(GroupNormSpec(32, 320, rank=4, dtype="float16"), 512 * 512)[0] == "native"  # tiled
    assert target.preference(replace(spec, rank=5), 4 * 8 * 8)[0] == "native"


def test_only_tensorrt_has_a_plugin_to_choose() -> None:
    with pytest.raises(InputError, match="only TensorRT has a plugin to choose"):
        Target.parse("ort-cpu+auto")
    assert Target.parse("openvino+plugin").takes("plugin", GroupNormSpec(4, 8))  # whose body it runs
    assert not Target.parse("ort-cuda+trt_plugins").takes("trt_plugins", GroupNormSpec(4, 8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_groups": 3, "num_channels": 8}, "not divisible"),
        ({"num_groups": 0, "num_channels": 8}, "at least 1"),
        ({"num_groups": 2, "num_channels": 8, "epsilon": -1e-5}, "not a number of 0 or more"),
        ({"num_groups": 2, "num_channels": 8, "epsilon": float("nan")}, "not a number of 0 or more"),
        ({"num_groups": 2, "num_channels": 8, "epsilon": float("inf")}, "not a number of 0 or more"),
        ({"num_groups": 2, "num_channels": 8, "dtype": "int8"}, "not a floating-point type"),
        ({"num_groups": 2, "num_channels": 8, "channel_axis": 2}, "neither 1 nor -1"),
    ],
)
def test_a_spec_refuses_what_cannot_be(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        GroupNormSpec(**arguments)  # type: ignore[arg-type]


def test_decisions_are_true_or_false_and_carry_reasons() -> None:
    assert Accepted("it fits")
    assert not Rejected("it does not")


def test_errors_carry_their_exit_code() -> None:
    assert GnDeployError("x").exit_code == InputError("x").exit_code == ExitCode.BAD_INPUT
    assert UnavailableError("x").exit_code == ExitCode.UNAVAILABLE
    assert str(InputError("no such file", "check the path")) == "no such file (check the path)"


def test_a_broken_entry_is_unavailable_and_breaks_nothing_else() -> None:
    registry: Registry[object] = Registry(
        "thing", "gn_deploy.nothing", {"good": "math:pi", "bad": "no_such_module_at_all:x", "worse": "math:nothing"}
    )
    assert registry.names() == ("good", "bad", "worse")
    entries = list(registry)
    assert isinstance(entries[1], Unavailable)
    assert isinstance(entries[2], Unavailable)
    assert registry.require("good") == pytest.approx(3.14159, abs=1e-5)
    with pytest.raises(UnavailableError, match="no_such_module_at_all"):
        registry.require("bad")
    with pytest.raises(InputError) as caught:
        registry.get("goud")
    assert caught.value.hint == "did you mean 'good'?"
