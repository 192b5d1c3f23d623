"""TensorRT-RTX builds for real here, without a GPU: which kernels it fuses, and what it refuses."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import gn_deploy as gn
from gn_deploy.errors import InputError, UnavailableError
from gn_deploy.runtimes import RUNTIMES
from gn_deploy.runtimes.base import RuntimeFailure
from gn_deploy.runtimes.trt_network import kernels_of_log
from tests.runtimes.small_models import group_norm, layer_norm, sample

RTX = RUNTIMES.require("tensorrt-rtx")
SHAPE = (2, 64, 32, 32)


@pytest.fixture
def build(tmp_path):
    def build_model(model, out=tmp_path / "m.engine", **options):
        ir.save(model, tmp_path / "m.onnx")
        return RTX.build(tmp_path / "m.onnx", out, **options)

    return build_model


def test_group_norm_and_silu_are_one_kernel(build) -> None:
    built = build(group_norm(21, "float16", 64, 8, SHAPE, silu=True)[0])
    (kernel,) = built.kernels
    assert "Silu" in kernel.name
    assert kernel.origin == ("gn", "sigmoid", "product")
    assert built.path.stat().st_size == built.size > 10_000
    assert built.version == RTX.probe().version
    assert built.detail == "compute capability 8.0 and later"
    assert [p.name for p in built.path.parent.iterdir() if p.suffix not in (".onnx", ".engine")] == []


def test_one_group_becomes_instance_norm_natively_but_not_as_layer_norm(build) -> None:
    """NVIDIA/TensorRT#4756, the reason why one group is never written natively; when this fails, it is mended."""
    per_channel = build(group_norm(21, "float16", 64, 64, SHAPE)[0])
    native = build(group_norm(21, "float16", 64, 1, SHAPE)[0])
    assert [k.name for k in native.kernels] == [k.name for k in per_channel.kernels], "no longer the same kernel"
    assert any("Inor" in k.name for k in native.kernels)
    right = build(layer_norm(64, "float16")[0])
    assert not any("Inor" in k.name for k in right.kernels)


THREE = """<ir_version: 10, opset_import: ["": 21]>
 g (float16[2,64,16,16] x, float16[2,64,16,16] r)
  => (float16[2,64,16,16] e, int8[2,64,16,16] q, float16[2,64,16,16] v) {
  [first] a = GroupNormalization<num_groups = 1>(x, w, b)  m = Mish(a)
  e = Add(m, r)
  [second] c = GroupNormalization<num_groups = 8>(e, w, b)  s = Sigmoid(c)  d = Mul(c, s)
  q = QuantizeLinear(d, k, z)
  [third] f = GroupNormalization<num_groups = 4>(r, w, b)  v = Relu(f) }"""


def test_without_the_library_the_bodies_of_the_plugins_nodes_are_built(build) -> None:
    """Each node its own, though TensorRT finds functions by name alone: told by the operators of the kernels."""
    proto = onnx.parser.parse_model(THREE)
    held = {"w": np.ones(64), "b": np.zeros(64), "k": np.asarray(0.05)}
    for name, array in held.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float16), name))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((), np.int8), "z"))
    lowered = gn.lower(proto, "tensorrt-rtx+plugin").model
    assert {node.op_type for node in lowered.graph} == {"GroupNorm", "SkipGroupNormQuantize"}
    built = build(lowered)
    assert built.size
    by_node = {name: [k.name for k in built.kernels if k.origin == (name,)] for k in built.kernels for name in k.origin}
    assert by_node.keys() >= {"first/GroupNorm", "second/SkipGroupNormQuantize", "third/GroupNorm"}
    assert any("Silu" in name and "Roun" in name for name in by_node["second/SkipGroupNormQuantize"])  # quantized
    assert any("Relu" in k.name for k in built.kernels if "third/GroupNorm" in k.origin)


def test_profiles_of_dynamic_models(build) -> None:
    assert build(group_norm(shape=("N", 8, 16, 16))[0]).size
    assert build(group_norm()[0], shapes={"x": ((1, 8, 4, 4), (1, 8, 8, 8), (4, 8, 16, 16))}).size
    with pytest.raises(InputError, match="cannot be guessed") as error:
        build(group_norm()[0])
    assert "--shapes x=Nx8xNxN:" in error.value.hint
    for shapes, told in (
        ({"z": ((1, 8, 4, 4),) * 3}, "no input of the model"),
        ({"x": ((1, 9, 4, 4),) * 3}, "does not fit"),
        ({"x": ((4, 8, 4, 4), (1, 8, 4, 4), (4, 8, 4, 4))}, "refuses these shapes"),
    ):
        with pytest.raises(InputError, match=told):
            build(group_norm()[0], shapes=shapes)


def test_compute_capabilities(build) -> None:
    model = group_norm(21, "float16", 64, 8, SHAPE)[0]
    assert build(model, compute_capabilities=("7.5", "8.9")).detail == "compute capability 7.5, 8.9"
    with pytest.raises(InputError, match=r"'9\.0' is not one") as error:
        build(model, compute_capabilities=("9.0",))
    assert "8.6" in error.value.hint


def test_refusals_name_the_node_and_leave_no_file(build, tmp_path) -> None:
    with pytest.raises(RuntimeFailure, match=r"cannot import GroupNormalization 'gn' .*at least 3D"):
        build(group_norm(shape=(2, 8))[0])
    with pytest.raises(InputError, match=r"folder .* is missing"):
        build(group_norm(21, "float32", 64, 8, SHAPE)[0], out=tmp_path / "absent" / "m.engine")
    wrong = group_norm(21, "float32", 8, 2, (2, 8, 4, 4))[0]
    wrong.graph.initializers["w"].const_value = ir.tensor(sample((4,)), name="w")
    with pytest.raises(RuntimeFailure, match="cannot"):
        build(wrong)
    with pytest.raises(InputError, match="no such plugin library"):
        build(group_norm(21, "float32", 64, 8, SHAPE)[0], plugins=(tmp_path / "absent.so",))
    (tmp_path / "text.so").write_text("not a library")
    with pytest.raises(InputError, match="cannot load plugin library"):
        build(group_norm(21, "float32", 64, 8, SHAPE)[0], plugins=(tmp_path / "text.so",))
    with pytest.raises(InputError, match="no such file"):
        RTX.build(tmp_path / "absent.onnx", tmp_path / "m.engine")
    assert not (tmp_path / "m.engine").exists()


def test_running_needs_a_gpu() -> None:
    if RTX.probe().run:
        pytest.skip("this machine has one")
    with pytest.raises(UnavailableError, match="cannot run an engine here"):
        RTX.open(group_norm()[0])


@pytest.mark.gpu
def test_engine_on_the_gpu_is_the_formula() -> None:
    from tests.runtimes.small_models import formula, relative_error

    model, scale, bias = group_norm(21, "float32", 64, 8, SHAPE)
    session = RTX.open(model)
    x = sample(SHAPE)
    assert relative_error(session.run({"x": x})["y"], formula(x, 8, scale, bias)) < 1e-5  # GPU sums in another order
    session.close()


def test_kernel_list_is_read_from_the_log() -> None:
    log = (
        "Layers:\nName: __mye1, LayerType: shape_call, Inputs: [], TacticName: , StreamId: 0, Metadata: \n"
        "Name: __myl_A_0, LayerType: kgen, Inputs: [ { Name: x, Dimensions: [1,2], Format: (Linear) a b }], "
        "TacticName: __myl_A_0xff, StreamId: 0, Metadata: [ONNX Layer: down.1/gn[0]][ONNX Layer: mul]\n\nI/O Tensors:\n"
    )
    (kernel,) = kernels_of_log(["noise", log])
    assert (kernel.name, kernel.kind, kernel.origin) == ("__myl_A_0xff", "kgen", ("down.1/gn[0]", "mul"))
    assert kernels_of_log(["noise"]) == ()
