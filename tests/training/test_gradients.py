"""A gradient that is not finite, though the loss is, never reaches the weights."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from deformable_detr.criterion.matching import NonFiniteError
from deformable_detr.structures import ImageBatch, Target
from deformable_detr.training import Recipe, SetLoss, build_optimizer
from deformable_detr.training.machine import accelerator_for
from deformable_detr.training.state import read_state
from deformable_detr.training.step import MAX_SKIPPED, Step
from helpers.models import small_model

pytestmark = pytest.mark.usefixtures("undrawn")

Train = Callable[..., int]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("flags", [(), ("--clip-norm", 0), ("--ema-decay", 0.9)])
def test_it_stops_a_training_and_what_was_saved_resumes(flags: tuple[object, ...], value: float, train: Train,
                                                        tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                        capsys: pytest.CaptureFixture[str]) -> None:
    out, backward, steps = tmp_path / "run", Step._backward, []

    def overflowed(self: Step, batches: list) -> dict:
        losses = backward(self, batches)
        steps.append(losses["total"].isfinite().item())
        if len(steps) == 3:
            self.model.pyramid.level_embedding.grad[0, 0] = value
        return losses

    monkeypatch.setattr(Step, "_backward", overflowed)
    call = ("--out", out, "--epochs", 2, "--save-steps", 1, *flags)
    assert train(*call) == 1
    assert steps == [True] * 3
    error = capsys.readouterr().err
    assert "the gradient of a step with the images '" in error
    assert ".png" in error
    status = read_state(out / "state.safetensors").status
    assert (status.epoch, status.step) == (1, 0)
    assert train(*call, "--resume") == 0
    assert read_state(out / "state.safetensors").status.epoch == 2


def test_weights_that_are_not_finite_are_not_saved(train: Train, tmp_path: Path,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    """With every gradient finite: weights decay beyond float32."""
    decay = ("--learning-rate", 1, "--weight-decay", 3e38)
    assert train("--out", tmp_path / "run", "--epochs", 1, "--save-steps", 1, *decay) == 1
    assert "is not finite: lower the learning rate" in capsys.readouterr().err
    assert not (tmp_path / "run" / "state.safetensors").exists()
    assert not (tmp_path / "run" / "last.safetensors").exists()


class Scaler:
    """Stands for fp16's loss scaling, which skips steps by itself."""


def test_fp16_skips_some_steps_but_not_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with accelerator_for(Recipe(), tmp_path) as accelerator:
        step = overflowing_step(accelerator)
        monkeypatch.setattr(accelerator, "scaler", Scaler())
        batch = (ImageBatch.from_images([torch.rand(3, 64, 64)]), [Target(torch.tensor([0]), torch.rand(1, 4), 7)])
        for _ in range(MAX_SKIPPED):
            step._check_gradients(torch.tensor(torch.inf), [batch])
        with pytest.raises(NonFiniteError, match=r"the images 'seven\.png' is not finite"):
            step._check_gradients(torch.tensor(torch.nan), [batch])
        step._check_gradients(torch.tensor(1.0), [batch])
        step._check_gradients(torch.tensor(torch.inf), [batch])


def overflowing_step(accelerator: Accelerator) -> Step:
    model: nn.Module = small_model()
    return Step(accelerator, model, build_optimizer(model, Recipe()), SetLoss(), 0.1, 1, lambda _: "seven.png")
