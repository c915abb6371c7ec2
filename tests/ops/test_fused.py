"""The fused op: references, offsets and logits."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deformable_detr import ops


def test_offsets_from_a_point_are_pixels_in_x_then_y(backend):
    value = torch.arange(12.0).view(1, 12, 1, 1)  # a map of 2 x 6
    reference = torch.tensor([0.5 / 6, 0.5 / 2]).view(1, 1, 1, 2)  # the first pixel
    offsets = torch.tensor([3.0, 1.0]).view(1, 1, 1, 1, 1, 2)
    with ops.use_backend(backend):
        output = ops.fused_ms_deform_attn(value, ((2, 6),), reference, offsets, torch.zeros(1, 1, 1, 1))
    assert output.item() == pytest.approx(9.0)  # row 1, column 3


def test_offsets_from_a_box_are_shares_of_its_half(backend):
    value = torch.arange(12.0).view(1, 12, 1, 1)  # a map of 2 x 6
    reference = torch.tensor([2.5 / 6, 0.5 / 2, 4 / 6, 1.0]).view(1, 1, 1, 4)
    offsets = torch.tensor([[2.0, 2.0], [-1.0, 0.0]]).view(
        1, 1, 1, 1, 2, 2
    )  # of two points: the corner, half left
    logits = torch.tensor([0.0, -torch.inf]).view(1, 1, 1, 2)
    with ops.use_backend(backend):
        corner = ops.fused_ms_deform_attn(value, ((2, 6),), reference, offsets, logits)
        half_left = ops.fused_ms_deform_attn(value, ((2, 6),), reference, offsets, logits.flip(-1))
    assert corner.item() == pytest.approx(10.0)  # two columns right and one row down of pixel 2
    assert half_left.item() == pytest.approx(1.0)


@pytest.mark.parametrize("coordinates", [2, 4])
def test_is_the_plain_op_on_locations_and_softmax(make_fused_inputs, backend, coordinates):
    value, shapes, reference, offsets, logits = make_fused_inputs(coordinates)
    sizes = torch.tensor([(width, height) for height, width in shapes], dtype=value.dtype)
    if coordinates == 2:
        locations = reference[:, :, None, :, None] + offsets / sizes[:, None]
    else:
        centre, extent = reference[:, :, None, :, None].chunk(2, dim=-1)
        locations = centre + offsets / offsets.shape[4] * extent * 0.5
    weights = logits.softmax(-1).view(offsets.shape[:-1])
    with ops.use_backend(backend):
        torch.testing.assert_close(
            ops.fused_ms_deform_attn(value, shapes, reference, offsets, logits),
            ops.ms_deform_attn(value, shapes, locations, weights),
        )


@pytest.mark.parametrize("coordinates", [2, 4])
def test_gradcheck(make_fused_inputs, backend, coordinates):
    value, shapes, reference, offsets, logits = make_fused_inputs(
        coordinates, level_shapes=((2, 3), (1, 1)), B=1, Q=2, D=2
    )

    def function(value, reference, offsets, logits):
        return ops.fused_ms_deform_attn(value, shapes, reference, offsets, logits)

    with ops.use_backend(backend):
        assert torch.autograd.gradcheck(function, (value, reference, offsets, logits))


def test_half_precision_keeps_locations_in_float32(backend):
    """On a map 167 wide, a location rounded to bfloat16 would be off by up to a third of a pixel."""
    shapes = ((1, 167),)
    value = torch.arange(167.0).view(1, 167, 1, 1)
    reference = torch.tensor([130.5 / 167, 0.5]).view(1, 1, 1, 2)
    offsets = torch.tensor([0.25, 0.0], dtype=torch.bfloat16).view(1, 1, 1, 1, 1, 2)
    logits = torch.zeros(1, 1, 1, 1, dtype=torch.bfloat16)
    with ops.use_backend(backend), torch.autocast("cpu", torch.bfloat16):
        output = ops.fused_ms_deform_attn(value, shapes, reference, offsets, logits)
    assert output.dtype == torch.float32
    assert output.item() == pytest.approx(130.25, abs=1e-3)


def test_zero_queries(make_fused_inputs, backend):
    with ops.use_backend(backend):
        output = ops.fused_ms_deform_attn(*make_fused_inputs(2, Q=0))
    assert output.shape == (2, 0, 6)


def with_gradients(backend, inputs):
    value, shapes, *others = inputs
    with ops.use_backend(backend):
        output = ops.fused_ms_deform_attn(value, shapes, *others)
        grad_output = torch.cos(torch.arange(output.numel(), dtype=output.dtype)).view_as(output)
        return output, *torch.autograd.grad(output, (value, *others), grad_output)


@settings(max_examples=60, deadline=None)
@given(
    level_shapes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4).map(tuple),
    B=st.integers(1, 3),
    Q=st.integers(0, 70),   # more than a tile of the kernels
    M=st.integers(1, 3),
    D=st.sampled_from([1, 3, 19, 32]),
    P=st.integers(1, 5),
    coordinates=st.sampled_from([2, 4]),
    seed=st.integers(0, 2**32 - 1),
)
def test_numba_agrees_with_the_reference(make_fused_inputs, level_shapes, B, Q, M, D, P, coordinates, seed):
    inputs = make_fused_inputs(coordinates, level_shapes=level_shapes, B=B, Q=Q, M=M, D=D, P=P, seed=seed,
                               dtype=torch.float32)
    actual = with_gradients("numba", inputs)
    inputs = [part.detach().double().requires_grad_() if isinstance(part, torch.Tensor) else part for part in inputs]
    expected = with_gradients("reference", inputs)
    torch.testing.assert_close(with_gradients("numba", inputs), expected, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(actual, tuple(part.float() for part in expected), rtol=1e-3, atol=2e-4)


@settings(max_examples=40, deadline=None)
@given(
    level_shapes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4).map(tuple),
    B=st.integers(0, 3),
    Q=st.integers(0, 9),
    M=st.integers(1, 3),
    D=st.integers(1, 5),
    P=st.integers(1, 5),
    coordinates=st.sampled_from([2, 4]),
    seed=st.integers(0, 2**32 - 1),
)
def test_gather_agrees_with_the_reference(make_fused_inputs, level_shapes, B, Q, M, D, P, coordinates, seed):
    sizes = {"level_shapes": level_shapes, "B": B, "Q": Q, "M": M, "D": D, "P": P, "seed": seed}
    for dtype, tolerance in (torch.float64, 1e-10), (torch.float32, 1e-4):
        inputs = make_fused_inputs(coordinates, dtype=dtype, **sizes)
        results = [with_gradients(backend, inputs) for backend in ("gather", "reference")]
        torch.testing.assert_close(*results, rtol=tolerance, atol=tolerance)


def test_offsets_may_come_as_a_linear_layer_makes_them(make_fused_inputs, backend):
    value, shapes, reference, offsets, logits = make_fused_inputs(4)
    joined = offsets.detach().flatten(3).requires_grad_()
    results = [with_gradients(backend, (value, shapes, reference, each, logits)) for each in (offsets, joined)]
    torch.testing.assert_close([part.flatten() for part in results[0]], [part.flatten() for part in results[1]],
                               rtol=0, atol=0)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 1e30])
@pytest.mark.parametrize("coordinates", [2, 4])
@pytest.mark.parametrize("where", ["reference", "offsets"])
def test_unreadable_positions_contribute_nothing(make_fused_inputs, backend, number, coordinates, where):
    """Every other query loses all points of level 0, as if these were outside the map."""
    value, shapes, reference, offsets, logits = make_fused_inputs(coordinates, Q=6)
    lost, outside = [tensor.detach().clone() for tensor in (reference, offsets)], reference.detach().clone()
    (lost[0][:, ::2, 0] if where == "reference" else lost[1][:, ::2, :, 0])[...] = number
    outside[:, ::2, 0] = 50.0 if coordinates == 2 else torch.tensor([50.0, 50.0, 0.0, 0.0], dtype=outside.dtype)
    actual = with_gradients(backend, [value, shapes, *(part.requires_grad_() for part in lost), logits])
    expected = with_gradients(backend, [value, shapes, outside.requires_grad_(), offsets, logits])
    for result, right in zip(actual, expected, strict=True):
        torch.testing.assert_close(result, right)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(make_fused_inputs, backend, dtype):
    value, shapes, *others = make_fused_inputs(2, dtype=torch.float32)
    half = [part.detach().to(dtype).requires_grad_() for part in (value, *others)]
    actual = with_gradients(backend, [half[0], shapes, *half[1:]])
    wide = [part.detach().float().requires_grad_() for part in half]
    expected = with_gradients(backend, [wide[0], shapes, *wide[1:]])
    assert all(part.dtype == dtype for part in actual)
    torch.testing.assert_close(actual[0], expected[0].to(dtype), rtol=0, atol=0)
    # The softmax's gradient is computed from the rounded output.
    unit = torch.finfo(dtype).eps
    torch.testing.assert_close([part.float() for part in actual], list(expected), rtol=4 * unit, atol=8 * unit)


def test_logits_of_any_size(backend):
    """The softmax neither overflows nor underflows: logits of thousands, and minus infinity, a weight of 0."""
    value = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)   # three maps of one pixel
    logits = torch.tensor([[9000.0, 8999.0, -9000.0], [-1000.0, -1000.0, -torch.inf]]).view(1, 2, 1, 3)
    with ops.use_backend(backend):
        output = ops.fused_ms_deform_attn(
            value, ((1, 1),) * 3, torch.full((1, 2, 3, 2), 0.5), torch.zeros(1, 2, 1, 3, 1, 2), logits)
    share = 1 / (1 + math.exp(-1))
    torch.testing.assert_close(output.flatten(), torch.tensor([share + 2 * (1 - share), 1.5]))
