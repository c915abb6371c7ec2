"""The published recipe, and settings that cannot be."""

from itertools import pairwise

import pytest
import torch

from deformable_detr.training import Recipe, build_optimizer
from helpers.models import small_model


@pytest.mark.parametrize(("epochs", "drop_epoch"), [(50, 40), (100, 40), (10, 1)])
def test_step_schedule_is_that_of_the_published_code(epochs: int, drop_epoch: int) -> None:
    recipe = Recipe(epochs=epochs, drop_epoch=drop_epoch)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, drop_epoch)
    for epoch in range(epochs):
        rates = [recipe.rate_factor(10 * epoch + step, 10) for step in (0, 9)]
        assert rates == pytest.approx([scheduler.get_last_lr()[0]] * 2)
        optimizer.step()
        scheduler.step()


def test_cosine_schedule_with_warmup() -> None:
    recipe = Recipe(epochs=2, schedule="cosine", warmup_steps=4)
    factors = [recipe.rate_factor(step, 10) for step in range(20)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1]
    assert all(later < earlier for earlier, later in pairwise(factors[4:]))
    assert 0 < factors[-1] < 0.02


def test_every_trained_parameter_is_in_one_group() -> None:
    model = small_model("multi-scale")
    groups = build_optimizer(model, Recipe()).param_groups
    assert [group["lr"] for group in groups] == pytest.approx([2e-4, 2e-5, 2e-5])
    listed = [parameter for group in groups for parameter in group["params"]]
    assert len(listed) == len(set(listed))
    assert set(listed) == {parameter for parameter in model.parameters() if parameter.requires_grad}
    slow = set(groups[2]["params"])
    assert model.encoder.layers[0].attention.sampling_offsets.bias in slow
    assert model.queries.reference.weight in slow


@pytest.mark.parametrize(("changes", "message"), [
    ({"epochs": 0}, "epochs: expected at least 1, got 0"), ({"learning_rate": -1.0}, "learning_rate"),
    ({"plain_epochs": 3}, "plain_epochs: expected 0 without augmentation 'strong', got 3"),
    ({"seed": 2**64}, f"seed: expected 0 to {2**64 - 1}, got {2**64}"), ({"seed": -1}, "seed: expected 0 to"),
    ({"seed": 10**400}, "seed: expected 0 to"),
    ({"weight_decay": float("nan")}, "weight_decay"), ({"batch_size": 0}, "batch_size"),
])
def test_impossible_recipe(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**changes)  # type: ignore[arg-type]


def test_the_largest_seed_is_one() -> None:
    torch.Generator().manual_seed(Recipe(seed=2**64 - 1).seed)
