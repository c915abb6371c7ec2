"""The choice of a backend."""

import importlib.util
import threading

import pytest
import torch

from deformable_detr import ops
from deformable_detr.ops.backend import choose_backend


def on_meta(inputs):
    value, locations, weights = (tensor.detach().to("meta") for tensor in inputs.leaves())
    return value, inputs.level_shapes, locations, weights


def test_reports_every_backend():
    reasons = ops.available_backends()
    assert set(reasons) == {"reference", "numba", "triton"}
    assert reasons["reference"] is None
    assert reasons["numba"] is None
    assert reasons["triton"] or torch.cuda.is_available()


def test_unknown_and_unavailable_backends_are_named():
    with pytest.raises(ValueError, match=r"'cuda'.*auto, reference, numba"), ops.use_backend("cuda"):
        pass
    with (
        pytest.raises(ValueError, match=r"'triton' is not available: .*auto, reference, numba"),
        ops.use_backend("triton"),
    ):
        pass


def test_auto_takes_triton_on_a_gpu_and_not_for_float64():
    installed = importlib.util.find_spec("triton")
    for dtype in (torch.float32, torch.bfloat16):
        assert choose_backend("cuda", dtype) == ("triton" if installed else "reference")
    assert choose_backend("cuda", torch.float64) == "reference"
    assert choose_backend("mps", torch.float32) == "reference"


def test_numba_refuses_other_devices_and_auto_does_not(make_inputs):
    inputs = make_inputs()
    with ops.use_backend("numba"), pytest.raises(ValueError, match=r"'numba' runs on the CPU.*'meta'"):
        ops.ms_deform_attn(*on_meta(inputs))
    output = ops.ms_deform_attn(*on_meta(inputs))
    assert output.device.type == "meta"
    assert output.shape == (2, 5, 6)


def test_choice_ends_with_the_block_and_stays_in_its_thread(make_inputs):
    inputs = make_inputs()

    def node():
        return ops.ms_deform_attn(*inputs.arguments()).grad_fn.name()

    auto = node()
    with ops.use_backend("reference"):
        reference = node()
        with ops.use_backend("numba"):
            assert node() == auto
        assert node() == reference
        seen = []
        thread = threading.Thread(target=lambda: seen.append(node()))
        thread.start()
        thread.join()
    assert auto != reference
    assert seen == [auto]
    with pytest.raises(KeyError), ops.use_backend("reference"):
        raise KeyError
    assert node() == auto
