"""Inputs of the op for the tests of this folder."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor


@dataclass(frozen=True)
class OpInputs:
    value: Tensor
    level_shapes: tuple[tuple[int, int], ...]
    locations: Tensor
    weights: Tensor

    def arguments(self) -> tuple:
        return self.value, self.level_shapes, self.locations, self.weights

    def leaves(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.value, self.locations, self.weights


def random_inputs(
    level_shapes=((4, 6), (1, 3)), B=2, Q=5, M=2, D=3, P=2, dtype=torch.float64, seed=0
) -> OpInputs:
    """Leaves that require gradients; a third of the points is outside the map, some at its edge."""
    generator = torch.Generator().manual_seed(seed)
    L = len(level_shapes)
    N = sum(height * width for height, width in level_shapes)
    value = torch.randn(B, N, M, D, generator=generator, dtype=dtype)
    locations = torch.rand(B, Q, M, L, P, 2, generator=generator, dtype=dtype) * 1.4 - 0.2
    weights = torch.rand(B, Q, M, L, P, generator=generator, dtype=dtype)
    return OpInputs(
        value.requires_grad_(), level_shapes, locations.requires_grad_(), weights.requires_grad_()
    )


@pytest.fixture(scope="session")
def make_inputs() -> Callable[..., OpInputs]:
    return random_inputs


def random_fused_inputs(coordinates: int, dtype=torch.float64, **sizes) -> tuple:
    """Arguments of the fused op; all tensors are leaves that require gradients."""
    inputs = random_inputs(dtype=dtype, **sizes)
    B, Q, M, L, P, _ = inputs.locations.shape
    generator = torch.Generator().manual_seed(1)
    reference = torch.rand(B, Q, L, coordinates, generator=generator, dtype=dtype).requires_grad_()
    offsets = torch.randn(B, Q, M, L, P, 2, generator=generator, dtype=dtype).requires_grad_()
    logits = torch.randn(B, Q, M, L * P, generator=generator, dtype=dtype).requires_grad_()
    return inputs.value, inputs.level_shapes, reference, offsets, logits


@pytest.fixture(scope="session")
def make_fused_inputs() -> Callable[..., tuple]:
    return random_fused_inputs


@pytest.fixture(params=["reference", "gather", "numba"])
def backend(request) -> str:
    return request.param
