"""Wrong arguments: the error names the argument, what came and what was expected."""

import subprocess
import sys

import pytest
import torch

from deformable_detr import ops


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": torch.zeros(2, 27, 6)}, r"value must have shape \(B, N, M, D\), got \(2, 27, 6\)"),
        ({"value": torch.zeros(2, 28, 2, 3)}, r"make 27 tokens, but value has N = 28"),
        ({"value": torch.zeros(2, 27, 0, 3)}, r"value must have at least one head and one channel"),
        ({"value": torch.zeros(2, 27, 2, 3, dtype=torch.int64)}, r"value must be float16.*got torch.int64"),
        (
            {"value": torch.zeros(3, 27, 2, 3)},
            r"locations must have shape .* = \(3, 5, 2, 2, 2, 2\), got \(2, 5",
        ),
        ({"level_shapes": ((4, 6), (3,))}, r"level_shapes must be pairs .*got \(\(4, 6\), \(3,\)\)"),
        ({"level_shapes": ((4, 6), (1, 3), (0, 3))}, r"level_shapes must be pairs .*at least 1"),
        ({"level_shapes": ()}, r"level_shapes must be pairs .*got \(\)"),
        ({"level_shapes": ((9, 3),)}, r"locations must have shape .* = \(2, 5, 2, 1, 2, 2\)"),
        ({"locations": torch.zeros(2, 5, 2, 4, 2)}, r"locations must have shape \(B, Q, M, L, P, 2\), got"),
        ({"locations": torch.zeros(2, 5, 2, 2, 2, 3)}, r"locations must have shape"),
        ({"locations": torch.zeros(2, 5, 2, 2, 0, 2)}, r"locations must have at least one point"),
        (
            {"locations": torch.zeros(2, 5, 2, 2, 2, 2).double()},
            r"locations must be float32.*got torch.float64",
        ),
        ({"locations": torch.zeros(2, 5, 2, 2, 2, 2).long()}, r"locations must be float32.*got torch.int64"),
        ({"locations": torch.zeros(2, 5, 2, 2, 2, 2, device="meta")}, r"locations must be on cpu .*got meta"),
        (
            {"weights": torch.zeros(2, 5, 2, 4)},
            r"weights must have shape .* = \(2, 5, 2, 2, 2\), got \(2, 5, 2, 4\)",
        ),
    ],
)
def test_plain_op(make_inputs, change, message):
    inputs = make_inputs(dtype=torch.float32)
    arguments = dict(zip(("value", "level_shapes", "locations", "weights"), inputs.arguments(), strict=True))
    with pytest.raises(ValueError, match=message):
        ops.ms_deform_attn(**(arguments | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"reference": torch.zeros(2, 5, 2, 3)},
            r"reference must have shape .*\(B, Q, L, 4\).*got \(2, 5, 2, 3\)",
        ),
        ({"reference": torch.zeros(2, 5, 2)}, r"reference must have shape .*got \(2, 5, 2\)"),
        ({"reference": torch.zeros(2, 5, 2, 2).double()}, r"reference must be float32.*got torch.float64"),
        ({"offsets": torch.zeros(2, 5, 2, 2, 2)}, r"offsets must have shape"),
        ({"offsets": torch.zeros(2, 5, 2, 3, 2, 2)}, r"offsets must have shape .* = \(2, 5, 2, 2, 2, 2\)"),
        ({"offsets": torch.zeros(2, 5, 2, 2, 0, 2)}, r"offsets must have at least one point"),
        (
            {"logits": torch.zeros(2, 5, 2, 2, 2)},
            r"logits must have shape \(B, Q, M, L \* P\) = \(2, 5, 2, 4\)",
        ),
        ({"logits": torch.zeros(2, 5, 2, 4, device="meta")}, r"logits must be on cpu as value is, got meta"),
    ],
)
def test_fused_op(make_inputs, change, message):
    inputs = make_inputs(dtype=torch.float32)
    arguments = {
        "value": inputs.value,
        "level_shapes": inputs.level_shapes,
        "reference": torch.zeros(2, 5, 2, 2),
        "offsets": torch.zeros(2, 5, 2, 2, 2, 2),
        "logits": torch.zeros(2, 5, 2, 4),
    }
    with pytest.raises(ValueError, match=message):
        ops.fused_ms_deform_attn(**(arguments | change))


def test_float64_value_needs_float64_locations(make_inputs):
    inputs = make_inputs()
    with pytest.raises(
        ValueError, match=r"locations must be float64 with a value of torch.float64, got torch.float32"
    ):
        ops.ms_deform_attn(inputs.value, inputs.level_shapes, inputs.locations.float(), inputs.weights)


WRONG_TYPES = """
import torch
from deformable_detr import ops

value, locations, weights = torch.zeros(1, 24, 1, 1), torch.zeros(1, 1, 1, 1, 1, 2), torch.ones(1, 1, 1, 1, 1)

def try_plain(value, level_shapes, locations=locations, weights=weights):
    try:
        ops.ms_deform_attn(value, level_shapes, locations, weights)
    except ValueError as error:
        print(error)

for level_shapes in ((4.0, 6),), (4, 6), None, torch.tensor([[4, 6]]):
    try_plain(value, level_shapes)
try_plain(value.tolist(), ((4, 6),))
try_plain(value, ((4, 6),), locations.numpy())
try_plain(value, ((4, 6),), weights=None)
try_plain(value.to_sparse(), ((4, 6),))
try:
    ops.fused_ms_deform_attn(value, ((4, 6),), [[0.5, 0.5]], locations, weights[..., 0])
except ValueError as error:
    print(error)
"""


def test_arguments_of_a_wrong_type():
    """In a process of its own: here the type checker of the tests would be first."""
    run = subprocess.run([sys.executable, "-c", WRONG_TYPES], capture_output=True, text=True, check=True)
    messages = run.stdout.splitlines()
    assert all(message.startswith("level_shapes must be pairs (height, width)") for message in messages[:4])
    assert [message.partition("; got ")[2] for message in messages[:4]] == [
        "((4.0, 6),)", "(4, 6)", "None", "a tensor: pass level_shapes.tolist()"]
    assert messages[4:] == [
        "value must be a torch.Tensor, got list", "locations must be a torch.Tensor, got ndarray",
        "weights must be a torch.Tensor, got NoneType", "value must be a dense tensor, got layout torch.sparse_coo",
        "reference must be a torch.Tensor, got list"]
