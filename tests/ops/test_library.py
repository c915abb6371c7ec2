"""The op under torch's own machinery: gradients, opcheck, compile, export, autocast."""

import subprocess
import sys

import pytest
import torch

from deformable_detr import ops


def test_gradcheck(make_inputs, backend):
    inputs = make_inputs(((2, 3), (1, 1)), B=1, Q=3, D=2)

    def function(value, locations, weights):
        return ops.ms_deform_attn(value, inputs.level_shapes, locations, weights)

    with ops.use_backend(backend):
        assert torch.autograd.gradcheck(function, inputs.leaves())


# opcheck itself looks at .grad of tensors that are no leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_opcheck(make_inputs, dtype):
    inputs = make_inputs(dtype=torch.float32)
    value = inputs.value.detach().to(dtype).requires_grad_()
    other_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    locations, weights = (
        tensor.detach().to(other_dtype).requires_grad_() for tensor in (inputs.locations, inputs.weights)
    )
    level_sizes = [4, 6, 1, 3]
    operators = torch.ops.deformable_detr
    torch.library.opcheck(operators.ms_deform_attn.default, (value, level_sizes, locations, weights))
    arguments = [tensor.detach() for tensor in (value, locations, weights)]
    grad_output = torch.ones(2, 5, 6, dtype=dtype)
    torch.library.opcheck(
        operators.ms_deform_attn_backward.default, (grad_output, arguments[0], level_sizes, *arguments[1:])
    )


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("coordinates", [2, 4])
def test_opcheck_of_the_fused_op(make_fused_inputs, coordinates):
    value, _, *others = make_fused_inputs(coordinates)
    operators = torch.ops.deformable_detr
    torch.library.opcheck(operators.fused_ms_deform_attn.default, (value, [4, 6, 1, 3], *others))
    arguments = [value.detach(), [4, 6, 1, 3], *(tensor.detach() for tensor in others)]
    output, log_sums = operators.fused_ms_deform_attn.default(*arguments)
    torch.library.opcheck(
        operators.fused_ms_deform_attn_backward.default, (torch.ones_like(output), *arguments, output, log_sums)
    )


def test_second_derivative_is_refused(make_inputs):
    inputs = make_inputs()
    with ops.use_backend("numba"):
        output = ops.ms_deform_attn(*inputs.arguments())
    (gradient,) = torch.autograd.grad(output.square().sum(), inputs.locations, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        gradient.sum().backward()


def test_autocast_takes_a_half_precision_value(make_inputs, backend):
    inputs = make_inputs(dtype=torch.float32)
    projection = torch.nn.Linear(6, 6)
    with ops.use_backend(backend), torch.autocast("cpu", torch.bfloat16):
        value = projection(inputs.value.flatten(2)).unflatten(2, (2, 3))
        output = ops.ms_deform_attn(value, inputs.level_shapes, inputs.locations, inputs.weights)
    assert value.dtype == output.dtype == torch.bfloat16
    output.float().sum().backward()
    assert inputs.locations.grad.dtype == torch.float32


COMPILE_AND_EXPORT = """
import torch
from deformable_detr import ops

SHAPES = ((4, 6), (1, 3))
torch.manual_seed(0)


class Attention(torch.nn.Module):
    def forward(self, value, reference, offsets, logits):
        return ops.fused_ms_deform_attn(value, SHAPES, reference, offsets, logits)


def inputs(Q):
    sizes = ((2, 27, 2, 3), (2, Q, 2, 2), (2, Q, 2, 2, 2, 2), (2, Q, 2, 4))
    return [torch.rand(size).requires_grad_() for size in sizes]


def assert_same(function, arguments):
    outputs = [each(*arguments) for each in (function, Attention())]
    torch.testing.assert_close(*outputs)
    gradients = [torch.autograd.grad(output.square().sum(), arguments) for output in outputs]
    torch.testing.assert_close(*gradients)


def operators(program):
    return {str(node.target) for node in program.graph.nodes if node.op == "call_function"}


compiled = torch.compile(Attention(), backend="aot_eager", fullgraph=True)
assert_same(compiled, inputs(5))
with ops.use_backend("reference"):
    assert_same(compiled, inputs(5))
torch.compiler.reset()
assert_same(torch.compile(Attention(), backend="aot_eager", fullgraph=True, dynamic=True), inputs(7))

queries = {1: torch.export.Dim("queries", min=2, max=1000)}
for backend, strict in ("reference", False), ("reference", True), ("numba", False), ("numba", True):
    with ops.use_backend(backend):
        program = torch.export.export(
            Attention(), tuple(inputs(5)), dynamic_shapes=({}, queries, queries, queries), strict=strict
        )
    assert any(name.startswith("deformable_detr.") for name in operators(program)) == (backend == "numba")
    assert_same(program.module(), inputs(11))
"""


def test_compile_and_export():
    """In a process of its own, where no type checker stands in the way of the tracing."""
    run = subprocess.run([sys.executable, "-c", COMPILE_AND_EXPORT], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
