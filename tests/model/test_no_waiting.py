"""A GPU computes while Python goes on: nothing in the forward pass may be copied between them, or read."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from deformable_detr import ImageBatch
from deformable_detr.papers import ModelConfig
from helpers.models import small_model


class Waits(TorchDispatchMode):
    """Notes every operation that makes host and device wait for each other."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        devices = {leaf.device for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)}
        if len(devices) > 1 or function is torch.ops.aten._local_scalar_dense.default:
            self.operations.append(str(function))
        return result


@pytest.mark.parametrize("preset", ModelConfig.presets)
def test_forward_makes_no_gpu_wait(preset):
    """On a GPU that is imagined: there tensors have shapes and devices, and reading their numbers is an error."""
    with FakeTensorMode(), torch.device("cuda"):
        model = small_model(preset)
        batch = ImageBatch.from_images([torch.empty(3, 64, 96), torch.empty(3, 50, 70)])
        with Waits() as waits:
            predictions = model(batch)
    assert predictions.boxes.device.type == "cuda"
    assert waits.operations == []


def test_waiting_is_noticed():
    with FakeTensorMode(), Waits() as waits:
        torch.empty(3, device="cuda") + torch.tensor([1, 2, 3]).to("cuda")
    assert waits.operations
