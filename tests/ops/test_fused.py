"""The fused op: what it makes of references, offsets and logits."""

import pytest
import torch

from deformable_detr import ops


def fused_inputs(make_inputs, coordinates, dtype=torch.float64, **sizes):
    inputs = make_inputs(dtype=dtype, **sizes)
    B, Q, M, L, P, _ = inputs.locations.shape
    generator = torch.Generator().manual_seed(1)
    reference = torch.rand(B, Q, L, coordinates, generator=generator, dtype=dtype).requires_grad_()
    offsets = torch.randn(B, Q, M, L, P, 2, generator=generator, dtype=dtype).requires_grad_()
    logits = torch.randn(B, Q, M, L * P, generator=generator, dtype=dtype).requires_grad_()
    return inputs.value, inputs.level_shapes, reference, offsets, logits


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
def test_is_the_plain_op_on_locations_and_softmax(make_inputs, backend, coordinates):
    value, shapes, reference, offsets, logits = fused_inputs(make_inputs, coordinates)
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
def test_gradcheck(make_inputs, backend, coordinates):
    value, shapes, reference, offsets, logits = fused_inputs(
        make_inputs, coordinates, level_shapes=((2, 3), (1, 1)), B=1, Q=2, D=2
    )

    def function(value, reference, offsets, logits):
        return ops.fused_ms_deform_attn(value, shapes, reference, offsets, logits)

    with ops.use_backend(backend):
        assert torch.autograd.gradcheck(function, (value, reference, offsets, logits))


def test_half_precision_keeps_locations_in_float32(make_inputs, backend):
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


def test_zero_queries(make_inputs, backend):
    with ops.use_backend(backend):
        output = ops.fused_ms_deform_attn(*fused_inputs(make_inputs, 2, Q=0))
    assert output.shape == (2, 0, 6)
