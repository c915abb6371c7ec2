"""The op without a GridSample, as ONNX, in ONNX Runtime; and what is found where a model is not for TensorRT."""

import subprocess
import sys

import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from deformable_detr import ops
from export import deformable_layer
from export.tensorrt_operators import departures


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The folder of a layer's files, by the number of coordinates of its references.

    Written by a process of its own: the type checker of the tests cannot be traced.
    """
    folder = tmp_path_factory.mktemp("gather")
    run = subprocess.run([sys.executable, deformable_layer.__file__, folder], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return folder


@pytest.mark.parametrize("coordinates", [2, 4])
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_another_runtime_computes_the_same(files, coordinates, batch):
    session = onnxruntime.InferenceSession(files / f"{coordinates}.onnx", providers=["CPUExecutionProvider"])
    tensors = deformable_layer.inputs(batch, coordinates)
    names = [each.name for each in session.get_inputs()]
    (found,) = session.run(None, {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)})
    with ops.use_backend("reference"), torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), deformable_layer.Layer()(*tensors), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("coordinates", [2, 4])
def test_the_graph_is_for_tensorrt(files, coordinates):
    assert departures(onnx.load(files / f"{coordinates}.onnx")) == []


def test_what_is_not_for_tensorrt_is_found():
    nodes = [helper.make_node("GridSample", ["maps", "grid"], ["samples"], name="sampled"),
             helper.make_node("Cast", ["grid"], ["wide"], to=TensorProto.DOUBLE),
             helper.make_node("Unsqueeze", ["samples", "axes"], ["ranked"]),
             helper.make_node("NonMaxSuppression", ["boxes", "scores"], ["kept"]),
             helper.make_node("Unique", ["kept"], ["rows"], name="unique")]
    sizes = {"maps": (1, 2, 5, 7), "grid": (1, 3, 4, 2), "boxes": (1, 9, 4), "scores": (1, 2, 9)}
    arguments = [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in sizes.items()]
    outputs = [helper.make_tensor_value_info("rows", TensorProto.INT64, ["n"])]
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [0, 1])
    model = helper.make_model(helper.make_graph(nodes, "planted", arguments, outputs, [axes]),
                              opset_imports=[helper.make_opsetid("", 20)])
    assert departures(model) == ["sampled is a GridSample", "unique is a Unique, which TensorRT lacks",
                                 "ranked has rank 6", "wide is in float64"]
