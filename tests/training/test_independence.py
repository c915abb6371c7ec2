"""Trainings in one process do not affect each other, nor what else the process does."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState

from deformable_detr.training import Recipe
from deformable_detr.training.machine import accelerator_for

pytestmark = pytest.mark.usefixtures("undrawn")

Train = Callable[..., int]


def hidden_state() -> tuple[object, ...]:
    return (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled(),
            *(dict(kind._shared_state) for kind in (PartialState, AcceleratorState, GradientState)))


def test_each_training_has_its_own_precision(tmp_path: Path) -> None:
    before = hidden_state()
    for precision in ("bf16", "no", "bf16"):
        with accelerator_for(Recipe(precision=precision), tmp_path) as accelerator:
            assert accelerator.mixed_precision == precision
    assert hidden_state() == before


def test_a_training_inside_another_program_gives_everything_back(tmp_path: Path) -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with accelerator_for(Recipe(precision="bf16"), tmp_path) as outer:
            before = hidden_state()
            with accelerator_for(Recipe(deterministic=True), tmp_path) as inner:
                assert inner.mixed_precision == "no"
                assert not torch.is_deterministic_algorithms_warn_only_enabled()
            assert hidden_state() == before
            assert outer.mixed_precision == "bf16"
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("flags", [("--epochs", 1), ("--weights", "any.safetensors"), ("--freeze", "nothing")])
def test_after_errors_too(flags: tuple[object, ...], train: Train, squares: Path, tmp_path: Path) -> None:
    before = hidden_state()
    (squares / "images" / "3.png").write_text("not an image")
    assert train("--out", tmp_path / "run", "--deterministic", "--precision", "bf16", *flags) in (1, 2)
    assert hidden_state() == before
