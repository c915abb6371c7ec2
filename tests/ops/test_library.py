"""The op under torch's own machinery: gradients, torch.func, opcheck, compile, export, autocast."""

import subprocess
import sys

import pytest
import torch
from torch.autograd import forward_ad

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


def plain_and_fused(make_inputs, make_fused_inputs):
    """Both ops as functions of three float64 tensors, with these tensors."""
    sizes = {"level_shapes": ((2, 3), (1, 1)), "B": 2, "Q": 2, "D": 2, "P": 1}
    value, shapes, locations, weights = make_inputs(**sizes).arguments()
    yield lambda *tensors: ops.ms_deform_attn(tensors[0], shapes, *tensors[1:]), (value, locations, weights)
    value, shapes, reference, offsets, logits = make_fused_inputs(4, **sizes)
    yield (lambda *tensors: ops.fused_ms_deform_attn(tensors[0], shapes, reference.detach(), *tensors[1:]),
           (value, offsets, logits))


# torch compiles its rules for forward mode with torch.jit.script, which it has deprecated.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_transforms_of_torch_func(make_inputs, make_fused_inputs):
    for function, tensors in plain_and_fused(make_inputs, make_fused_inputs):
        output = function(*tensors)
        expected = torch.autograd.grad(output.square().sum(), tensors)
        tensors = [tensor.detach() for tensor in tensors]
        every = tuple(range(3))
        gradients = torch.func.grad(lambda *each, function=function: function(*each).square().sum(), every)(*tensors)
        torch.testing.assert_close(gradients, expected)
        result, pull_back = torch.func.vjp(function, *tensors)
        torch.testing.assert_close(result, output.detach())
        torch.testing.assert_close(pull_back(2 * result), expected)
        jacobians = torch.func.jacrev(function, every)(*tensors)
        torch.testing.assert_close(torch.func.jacfwd(function, every)(*tensors), jacobians)
        many = torch.func.vmap(function, in_dims=(0, None, None))(torch.stack((tensors[0], -tensors[0])), *tensors[1:])
        torch.testing.assert_close(many, torch.stack((output, -output)).detach())


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_forward_mode_has_the_tangent(make_inputs, make_fused_inputs):
    for function, tensors in plain_and_fused(make_inputs, make_fused_inputs):
        tangent = torch.cos(torch.arange(tensors[1].numel(), dtype=torch.float64)).view_as(tensors[1])
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(tensors[1].detach(), tangent)
            actual = forward_ad.unpack_dual(function(tensors[0].detach(), dual, tensors[2].detach())).tangent
        output = function(*tensors)
        direction = torch.sin(torch.arange(output.numel(), dtype=torch.float64)).view_as(output)
        (gradient,) = torch.autograd.grad(output, tensors[1], direction)
        torch.testing.assert_close((actual * direction).sum(), (gradient * tangent).sum())


def test_gradients_of_any_subset(make_inputs, make_fused_inputs):
    for function, tensors in plain_and_fused(make_inputs, make_fused_inputs):
        every = torch.autograd.grad(function(*tensors).square().sum(), tensors)
        for subset in range(1, 8):
            wanted = [bool(subset >> index & 1) for index in range(3)]
            some = [tensor.detach().requires_grad_(want) for tensor, want in zip(tensors, wanted, strict=True)]
            function(*some).square().sum().backward()
            for tensor, want, expected in zip(some, wanted, every, strict=True):
                torch.testing.assert_close(tensor.grad, expected if want else None)


def test_second_derivative_is_refused(make_inputs):
    inputs = make_inputs()
    with ops.use_backend("numba"):
        output = ops.ms_deform_attn(*inputs.arguments())
    (gradient,) = torch.autograd.grad(output.square().sum(), inputs.locations, create_graph=True)
    with pytest.raises(RuntimeError, match=r"no second derivative: .*use_backend\(\"reference\"\)"):
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
    """In a process of its own: the type checker of the tests cannot be traced."""
    run = subprocess.run([sys.executable, "-c", COMPILE_AND_EXPORT], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
