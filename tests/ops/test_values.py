"""Values of the op: against loops written from the definition, and between the backends."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deformable_detr import ops


def loops(value, level_shapes, locations, weights):
    """The definition, pixel by pixel: a pixel's share falls linearly to zero at a distance of one pixel."""
    value, locations, weights = (tensor.detach().numpy() for tensor in (value, locations, weights))
    B, _, M, D = value.shape
    output = np.zeros((B, locations.shape[1], M, D))
    for b, q, m, level, p in np.ndindex(weights.shape):
        height, width = level_shapes[level]
        start = sum(h * w for h, w in level_shapes[:level])
        x, y = locations[b, q, m, level, p]
        for row in range(height):
            for column in range(width):
                share = max(0, 1 - abs(x * width - column - 0.5)) * max(0, 1 - abs(y * height - row - 0.5))
                token = start + row * width + column
                output[b, q, m] += weights[b, q, m, level, p] * share * value[b, token, m]
    return torch.from_numpy(output.reshape(B, -1, M * D))


def with_gradients(backend, function, leaves, grad_output=None):
    with ops.use_backend(backend):
        output = function()
        if grad_output is None:
            grad_output = torch.cos(torch.arange(output.numel(), dtype=output.dtype)).view_as(output)
        return output, *torch.autograd.grad(output, leaves, grad_output)


def test_matches_loops(make_inputs, backend):
    inputs = make_inputs(level_shapes=((4, 6), (1, 3), (1, 1)))
    with ops.use_backend(backend):
        output = ops.ms_deform_attn(*inputs.arguments())
    torch.testing.assert_close(output, loops(*inputs.arguments()))


@settings(max_examples=60, deadline=None)
@given(
    level_shapes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4).map(tuple),
    B=st.integers(1, 3),
    Q=st.integers(0, 7),
    M=st.integers(1, 3),
    D=st.integers(1, 19),
    P=st.integers(1, 5),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 2**32 - 1),
)
def test_numba_agrees_with_the_reference(make_inputs, level_shapes, B, Q, M, D, P, dtype, seed):
    inputs = make_inputs(level_shapes, B, Q, M, D, P, dtype, seed)
    actual = with_gradients("numba", lambda: ops.ms_deform_attn(*inputs.arguments()), inputs.leaves())
    tolerance = {"rtol": 1e-3, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-10}
    torch.testing.assert_close(actual, in_float64(*inputs.arguments(), dtype=dtype), **tolerance)


def in_float64(value, level_shapes, locations, weights, dtype):
    """Output and gradients of the reference for the same numbers in float64."""
    value, locations, weights = leaves = [tensor.detach().double().requires_grad_()
                                          for tensor in (value, locations, weights)]
    results = with_gradients("reference", lambda: ops.ms_deform_attn(value, level_shapes, locations, weights), leaves)
    return tuple(result.to(dtype) for result in results)


def locations_near_pixel_centres(size):
    """All centres of a row of pixels in float32, and the two numbers before and after each."""
    centres = (torch.arange(size) + 0.5) / size
    after, before = (centres.nextafter(torch.tensor(limit)) for limit in (2.0, -2.0))
    return torch.cat((centres, after, before, after.nextafter(torch.tensor(2.0)), before.nextafter(torch.tensor(-2.0))))


@pytest.mark.parametrize("backend", ["reference", "numba"])   # gather and triton know positions in float32 only
@pytest.mark.parametrize("shape", [(64, 2), (50, 37), (7, 134), (1, 3)])
def test_slopes_at_pixel_centres_are_those_of_float64(backend, shape):
    """The slope jumps there: a rounding of the position to the other side would show."""
    height, width = shape
    generator = torch.Generator().manual_seed(0)
    x, y = locations_near_pixel_centres(width), locations_near_pixel_centres(height)
    x, y = (axis[torch.randint(len(axis), (300,), generator=generator)] for axis in (x, y))
    y[0] = 0.1328124850988388   # on 64 rows just above a centre; 2 * y - 1 is on it
    value = torch.randn(1, height * width, 1, 3, generator=generator).requires_grad_()
    locations = torch.stack((x, y), -1).view(1, -1, 1, 1, 1, 2).requires_grad_()
    weights = torch.rand(1, 300, 1, 1, 1, generator=generator).requires_grad_()
    leaves = value, locations, weights
    actual = with_gradients(backend, lambda: ops.ms_deform_attn(value, (shape,), locations, weights), leaves)
    expected = in_float64(value, (shape,), locations, weights, torch.float32)
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-2)   # the other side is off by some tens


def test_pixel_centre_reads_the_pixel(backend):
    value = torch.arange(6.0).view(1, 6, 1, 1)  # a map of 2 x 3
    locations = torch.tensor([2.5 / 3, 1.5 / 2]).view(1, 1, 1, 1, 1, 2)
    with ops.use_backend(backend):
        output = ops.ms_deform_attn(value, ((2, 3),), locations, torch.ones(1, 1, 1, 1, 1))
    assert output.item() == pytest.approx(5.0)


def test_corner_of_the_map_has_a_quarter_of_the_pixel(backend):
    value = torch.full((1, 6, 1, 1), 8.0)
    with ops.use_backend(backend):
        output = ops.ms_deform_attn(
            value, ((2, 3),), torch.zeros(1, 1, 1, 1, 1, 2), torch.ones(1, 1, 1, 1, 1)
        )
    assert output.item() == pytest.approx(2.0)


def test_zero_batch_and_zero_queries(make_inputs, backend):
    for sizes in ({"B": 0}, {"Q": 0}):
        inputs = make_inputs(**sizes)
        output, *gradients = with_gradients(
            backend, lambda inputs=inputs: ops.ms_deform_attn(*inputs.arguments()), inputs.leaves()
        )
        assert output.shape == (inputs.value.shape[0], inputs.locations.shape[1], 6)
        for gradient, leaf in zip(gradients, inputs.leaves(), strict=True):
            torch.testing.assert_close(gradient, torch.zeros_like(leaf))


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 1e30, -1e30])
@pytest.mark.parametrize("coordinate", [0, 1, slice(None)])
def test_unreadable_locations_contribute_nothing(make_inputs, backend, number, coordinate):
    inputs = make_inputs(dtype=torch.float32)
    bad = torch.zeros(inputs.weights.shape, dtype=torch.bool)
    bad[:, 1::2] = True
    with torch.no_grad():
        inputs.locations[:, 1::2, ..., coordinate] = number
    actual = with_gradients(backend, lambda: ops.ms_deform_attn(*inputs.arguments()), inputs.leaves())
    masked_weights = torch.where(bad, 0, inputs.weights)
    good = inputs.locations.detach().masked_fill(bad[..., None], 0.5).requires_grad_()
    expected = with_gradients(
        backend,
        lambda: ops.ms_deform_attn(inputs.value, inputs.level_shapes, good, masked_weights),
        (inputs.value, good, inputs.weights),
    )
    torch.testing.assert_close(actual, expected)


def test_a_bad_value_stays_where_it_is_read(make_inputs):
    """Only for points between pixels of the map: near its edge the kernels multiply a neighbour by 0."""
    height, width = 5, 7
    inputs = make_inputs(level_shapes=((height, width),), Q=40)
    with torch.no_grad():
        inputs.value[:, [0, -1]] = math.nan
        edge = torch.tensor([0.5 / width, 0.5 / height])
        inputs.locations.copy_(inputs.locations.clamp(edge + 1e-3, 1 - edge - 1e-3))
    expected, actual = (
        with_gradients(backend, lambda: ops.ms_deform_attn(*inputs.arguments()), inputs.leaves())
        for backend in ("reference", "numba")
    )
    assert expected[0].isfinite().any()
    assert expected[0].isnan().any()
    torch.testing.assert_close(actual, expected, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("half_locations", [False, True])
def test_half_precision_is_computed_in_float32(make_inputs, backend, dtype, half_locations):
    inputs = make_inputs(dtype=torch.float32)
    other_dtype = dtype if half_locations else torch.float32
    value = inputs.value.detach().to(dtype).requires_grad_()
    locations, weights = (
        tensor.detach().to(other_dtype).requires_grad_() for tensor in (inputs.locations, inputs.weights)
    )
    shapes = inputs.level_shapes
    with ops.use_backend(backend):
        output = ops.ms_deform_attn(value, shapes, locations, weights)
        widened = ops.ms_deform_attn(value.float(), shapes, locations.float(), weights.float())
    assert output.dtype == dtype
    torch.testing.assert_close(output, widened.to(dtype), rtol=0, atol=0)
    output.float().square().sum().backward()
    assert (value.grad.dtype, locations.grad.dtype, weights.grad.dtype) == (dtype, other_dtype, other_dtype)


def test_strided_inputs(make_inputs, backend):
    inputs = make_inputs()
    expected = with_gradients(backend, lambda: ops.ms_deform_attn(*inputs.arguments()), inputs.leaves())

    def strided(tensor):
        return torch.stack((tensor, tensor), dim=-1)[..., 0]

    def function():
        value, locations, weights = (strided(tensor) for tensor in inputs.leaves())
        assert not value.is_contiguous()
        return ops.ms_deform_attn(value, inputs.level_shapes, locations, weights)

    output = expected[0]
    grad_output = torch.cos(torch.arange(output.numel(), dtype=output.dtype)).view_as(output)
    strided_grad = grad_output.transpose(1, 2).contiguous().transpose(1, 2)
    torch.testing.assert_close(with_gradients(backend, function, inputs.leaves(), strided_grad), expected)


def test_expanded_gradient_and_value(make_inputs, backend):
    inputs = make_inputs(B=1)
    value = inputs.value.expand(2, -1, -1, -1)
    locations, weights = (tensor.expand(2, *tensor.shape[1:]) for tensor in inputs.leaves()[1:])
    with ops.use_backend(backend):
        ops.ms_deform_attn(value, inputs.level_shapes, locations, weights).sum().backward()
        (once,) = torch.autograd.grad(ops.ms_deform_attn(*inputs.arguments()).sum(), inputs.value)
    torch.testing.assert_close(inputs.value.grad, 2 * once)


def test_level_shapes_may_be_lists(make_inputs):
    inputs = make_inputs()
    lists = [list(shape) for shape in inputs.level_shapes]
    torch.testing.assert_close(
        ops.ms_deform_attn(inputs.value, lists, inputs.locations, inputs.weights),
        ops.ms_deform_attn(*inputs.arguments()),
    )
