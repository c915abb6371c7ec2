"""The choice of a backend."""

import importlib.util
import threading

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad

from deformable_detr import ops
from deformable_detr.ops.backend import choose_backend


def on_meta(inputs):
    value, locations, weights = (tensor.detach().to("meta") for tensor in inputs.leaves())
    return value, inputs.level_shapes, locations, weights


def tensor_on(device, dtype):
    """A tensor that claims to be on a device which may not be there."""
    with FakeTensorMode():
        return torch.empty(1, device=device, dtype=dtype)


def test_reports_every_backend():
    reasons = ops.available_backends()
    assert set(reasons) == {"reference", "gather", "numba", "triton"}
    assert reasons["reference"] is reasons["gather"] is None
    assert reasons["numba"] is None
    assert reasons["triton"] or torch.cuda.is_available()


def test_unknown_and_unavailable_backends_are_named():
    with pytest.raises(ValueError, match=r"'cuda'.*auto, reference, gather, numba"), ops.use_backend("cuda"):
        pass
    with (
        pytest.raises(ValueError, match=r"'triton' is not available: .*auto, reference, gather, numba"),
        ops.use_backend("triton"),
    ):
        pass


def test_auto_takes_triton_on_a_gpu_and_not_for_float64():
    installed = importlib.util.find_spec("triton")
    for dtype in (torch.float32, torch.bfloat16):
        assert choose_backend(tensor_on("cuda", dtype)) == ("triton" if installed else "reference")
    assert choose_backend(tensor_on("cuda", torch.float64)) == "reference"
    assert choose_backend(tensor_on("mps", torch.float32)) == "reference"


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


# torch compiles its rules for forward mode with torch.jit.script, which it has deprecated.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_kernels_refuse_what_only_the_reference_can_differentiate(make_inputs):
    inputs = make_inputs()

    def total(value):
        return ops.ms_deform_attn(value, inputs.level_shapes, inputs.locations, inputs.weights).sum()

    with ops.use_backend("numba"):
        with pytest.raises(ValueError, match=r"'numba' computes ordinary gradients only; expected 'reference'"):
            torch.func.grad(total)(inputs.value)
        with forward_ad.dual_level(), pytest.raises(ValueError, match="forward-mode"):
            total(forward_ad.make_dual(inputs.value.detach(), torch.ones_like(inputs.value)))
