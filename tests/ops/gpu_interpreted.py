"""The Triton kernels as ordinary Python, against the definition. `test_gpu.py` runs this file. By hand, with --pdb:

TRITON_INTERPRET=1 python -m pytest tests/ops/gpu_interpreted.py
"""

import os

import pytest
import torch

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("the kernels run here only with TRITON_INTERPRET=1", allow_module_level=True)

from deformable_detr.ops import gpu
from deformable_detr.ops.reference import (
    attention_weights,
    positions_of_locations,
    positions_of_offsets,
    reference_ms_deform_attn,
)

# The definition is computed in float64. Sums of some dozens of float32 numbers of about 1 are off by less.
FLOAT32 = {"rtol": 2e-5, "atol": 2e-5}

ODD_SIZES = [
    {"level_shapes": ((4, 6),), "M": 1, "D": 1, "P": 1, "Q": 37},
    {"level_shapes": ((5, 3), (1, 1)), "M": 3, "D": 8, "P": 6},
    {"level_shapes": ((2, 7), (4, 4), (1, 3)), "M": 2, "D": 24, "P": 3, "B": 1},
    {"level_shapes": ((8, 9), (4, 5), (2, 3), (1, 2)), "M": 8, "D": 32, "P": 4, "Q": 3, "B": 1},
    {"level_shapes": ((3, 3), (1, 5), (6, 1), (2, 2), (1, 1)), "M": 1, "D": 64, "P": 5, "B": 1},
]


@pytest.fixture(autouse=True)
def poisoned_memory():
    """`torch.empty` is filled with NaN here, so that an element shows that a kernel does not write."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert torch.empty(100).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(params=ODD_SIZES, ids=lambda sizes: f"D{sizes['D']}")
def plain_inputs(request, make_inputs):
    return make_inputs(**request.param, dtype=torch.float32)


def fused_inputs(inputs, coordinates):
    """Reference, offsets and logits for the value of `inputs`."""
    B, Q, M, L, P, _ = inputs.locations.shape
    generator = torch.Generator().manual_seed(1)
    reference = torch.rand(B, Q, L, coordinates, generator=generator)
    offsets = 2 * torch.randn(B, Q, M, L, P, 2, generator=generator)
    logits = 2 * torch.randn(B, Q, M, L * P, generator=generator)
    return reference, offsets, logits


def sizes_of(level_shapes):
    return [size for shape in level_shapes for size in shape]


def grad_of(output):
    return torch.cos(torch.arange(output.numel(), dtype=torch.float32)).view_as(output).to(output.dtype)


def leaves(*tensors):
    return [tensor.detach().double().requires_grad_() for tensor in tensors]


def run_plain(level_shapes, value, locations, weights):
    """Output and gradients, by the kernels."""
    inputs = value.detach(), sizes_of(level_shapes), locations.detach(), weights.detach()
    output = gpu.forward(*inputs)
    return output, *gpu.backward(grad_of(output), *inputs)


def define_plain(level_shapes, value, locations, weights):
    """The same by the definition in float64."""
    inputs = leaves(value, locations, weights)
    positions = positions_of_locations(inputs[1], level_shapes)
    output = reference_ms_deform_attn(inputs[0], level_shapes, positions, inputs[2])
    return output, *torch.autograd.grad(output, inputs, grad_of(output.to(value.dtype)).double())


def run_fused(level_shapes, value, reference, offsets, logits):
    """The output, its softmax's log sums, and the gradients of value, positions and logits, by the kernels."""
    inputs = value.detach(), sizes_of(level_shapes), reference, offsets, logits
    output, log_sums = gpu.fused_forward(*inputs)
    return output, log_sums, *gpu.fused_backward(grad_of(output), *inputs, output, log_sums)


def define_fused(level_shapes, value, reference, offsets, logits):
    """The same by the definition in float64."""
    value64, logits64 = leaves(value, logits)
    (positions,) = leaves(positions_of_offsets(reference.double(), offsets.double(), level_shapes))
    weights = attention_weights(logits64, len(level_shapes))
    output = reference_ms_deform_attn(value64, level_shapes, positions, weights)
    inputs = (value64, positions, logits64)
    grad_value, grad_positions, grad_logits = torch.autograd.grad(
        output, inputs, grad_of(output.to(value.dtype)).double())
    return output, logits64.logsumexp(-1), grad_value, grad_positions, grad_logits


def assert_all_close(actual, expected, **tolerances):
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one.double(), other.double(), **tolerances)


def test_plain_op(plain_inputs):
    actual = run_plain(plain_inputs.level_shapes, *plain_inputs.leaves())
    assert_all_close(actual, define_plain(plain_inputs.level_shapes, *plain_inputs.leaves()), **FLOAT32)


@pytest.mark.parametrize("coordinates", [2, 4], ids=["points", "boxes"])
def test_fused_op(plain_inputs, coordinates):
    inputs = (plain_inputs.level_shapes, plain_inputs.value, *fused_inputs(plain_inputs, coordinates))
    assert_all_close(run_fused(*inputs), define_fused(*inputs), **FLOAT32)


@pytest.mark.parametrize("target", [gpu.GpuTraits(32, adds_vectors=False), gpu.GpuTraits(64, adds_vectors=False)])
def test_programs_of_other_sizes(make_inputs, monkeypatch, target):
    monkeypatch.setattr(gpu.GpuTraits, "of", lambda device: target)
    inputs = make_inputs(Q=5, D=24, dtype=torch.float32)
    actual = run_plain(inputs.level_shapes, *inputs.leaves())
    assert_all_close(actual, define_plain(inputs.level_shapes, *inputs.leaves()), **FLOAT32)


# Results are rounded once: float16 has 11 binary digits; bfloat16 has 8, and the interpreter truncates to them where
# GPUs round. In the fused backward the product of output and gradient, of 4 numbers up to 3, is of the rounded output.
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float16, 2**-11), (torch.bfloat16, 2**-7)])
@pytest.mark.parametrize("all_half", [True, False], ids=["all half", "only the value"])
def test_half_precision(make_inputs, dtype, rounding, all_half):
    inputs = make_inputs(D=4, dtype=torch.float32)
    others = dtype if all_half else torch.float32
    value = inputs.value.to(dtype)
    locations, weights = inputs.locations.to(others), inputs.weights.to(others)
    actual = run_plain(inputs.level_shapes, value, locations, weights)
    assert [tensor.dtype for tensor in actual] == [dtype, dtype, others, others]
    expected = define_plain(inputs.level_shapes, value, locations, weights)
    assert_all_close(actual, expected, rtol=rounding, atol=2e-5)

    fused = [tensor.to(others) for tensor in fused_inputs(inputs, 4)]
    actual = run_fused(inputs.level_shapes, value, *fused)
    assert [tensor.dtype for tensor in actual] == [dtype, torch.float32, dtype, torch.float32, others]
    expected = define_fused(inputs.level_shapes, value, *fused)
    assert_all_close(actual[:4], expected[:4], rtol=rounding, atol=2e-5)
    assert_all_close(actual[4:], expected[4:], rtol=rounding, atol=12 * rounding)


def test_zero_queries(make_inputs):
    inputs = make_inputs(Q=0, dtype=torch.float32)
    output, grad_value, *_ = run_plain(inputs.level_shapes, *inputs.leaves())
    assert output.shape == (2, 0, 6)
    assert not grad_value.any()
    output, log_sums, grad_value, *_ = run_fused(inputs.level_shapes, inputs.value, *fused_inputs(inputs, 2))
    assert (output.shape, log_sums.shape) == ((2, 0, 6), (2, 0, 2))
    assert not grad_value.any()


# The interpreter computes with NumPy, which warns where a GPU does not.
ignore_overflow = pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
STRANGE = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e30, -1e30, 3e38, -3e38])


@ignore_overflow
@pytest.mark.parametrize("axis", [0, 1], ids=["x", "y"])
def test_locations_far_outside_or_not_finite(make_inputs, axis):
    """They contribute 0, they and their weights get a zero gradient, and nothing else changes."""
    inputs = make_inputs(Q=len(STRANGE), dtype=torch.float32)
    strange = inputs.locations.detach().clone()
    strange[0, :, 0, 1, 1, axis] = STRANGE
    arguments = (inputs.level_shapes, inputs.value, strange, inputs.weights)
    actual = run_plain(*arguments)
    assert not actual[2][0, :, 0, 1, 1].any()
    assert not actual[3][0, :, 0, 1, 1].any()
    assert_all_close(actual, define_plain(*arguments), **FLOAT32)


@ignore_overflow
@pytest.mark.parametrize("coordinates", [2, 4], ids=["points", "boxes"])
def test_references_and_offsets_far_outside_or_not_finite(make_inputs, coordinates):
    inputs = make_inputs(Q=len(STRANGE), dtype=torch.float32)
    reference, offsets, logits = fused_inputs(inputs, coordinates)
    offsets[0, :, 0, 1, 1, 0] = STRANGE
    reference[1, :, 0, 1] = STRANGE
    arguments = (inputs.level_shapes, inputs.value, reference, offsets, logits)
    actual = run_fused(*arguments)
    assert not actual[3][0, :, 0, 1, 1].any()
    assert not actual[3][1, :, :, 0].any()
    assert_all_close(actual, define_fused(*arguments), **FLOAT32)


def test_positions_at_the_edges_and_on_pixels():
    """Up to a pixel outside the map a share is left. On a pixel centre the slope is that to the right, or below."""
    value = torch.tensor([1.0, 3.0, 7.0]).view(1, 3, 1, 1)  # a map of 1 x 3
    positions = torch.tensor([-1.0, -0.5, 0.0, 1.0, 1.5, 2.0, 2.75, 3.0])
    locations = torch.stack(((positions + 0.5) / 4, torch.full_like(positions, 0.5)), -1).view(
        1, 8, 1, 1, 1, 2
    )
    locations[..., 0] *= 4 / 3
    weights = torch.ones(1, 8, 1, 1, 1)
    output = gpu.forward(value, [1, 3], locations, weights)
    torch.testing.assert_close(output.flatten(), torch.tensor([0, 0.5, 1, 3, 5, 7, 1.75, 0]))
    _, grad_locations, _ = gpu.backward(torch.ones_like(output), value, [1, 3], locations, weights)
    slopes = grad_locations[..., 0].flatten() / 3
    torch.testing.assert_close(slopes, torch.tensor([1.0, 1, 2, 4, 4, -7, -7, 0]))


@ignore_overflow
def test_logits_of_any_size(make_inputs):
    """As torch's softmax: -inf is a weight of 0; only -inf, or a NaN or +inf, gives NaN; 1e4 is ordinary."""
    inputs = make_inputs(Q=5, dtype=torch.float32)
    reference, offsets, logits = fused_inputs(inputs, 2)
    logits[0, 0, 0, 1:3] = -torch.inf
    logits[0, 1, 0] = -torch.inf
    logits[0, 2, 0, 2] = torch.nan
    logits[0, 3, 0, 2] = torch.inf
    logits[0, 4, 0] = 1e4
    arguments = (inputs.level_shapes, inputs.value, reference, offsets, logits)
    output, log_sums, grad_value, grad_positions, grad_logits = run_fused(*arguments)
    expected = define_fused(*arguments)
    assert_all_close((output,), expected[:1], equal_nan=True, **FLOAT32)
    broken = torch.zeros(2, 5, 2, dtype=torch.bool)
    broken[0, 1:4, 0] = True
    assert log_sums[0, 1, 0] == -torch.inf or log_sums[0, 1, 0].isnan()
    assert_all_close(
        (log_sums[~broken], grad_positions[~broken], grad_logits[~broken]),
        (expected[1][~broken], expected[3][~broken], expected[4][~broken]),
        rtol=1e-3,  # a logit of 1e4 has only three digits after the point
        atol=2e-5,
    )
    assert grad_logits[0, 1:4, 0].isnan().all()
    assert grad_value[1].isfinite().all()


def test_strided_inputs(make_inputs):
    inputs = make_inputs(dtype=torch.float32)
    strided = [torch.stack((tensor, tensor), dim=-1)[..., 0].detach() for tensor in inputs.leaves()]
    assert not strided[0].is_contiguous()
    actual = run_plain(inputs.level_shapes, *strided)
    assert_all_close(actual, run_plain(inputs.level_shapes, *inputs.leaves()), rtol=0, atol=0)
