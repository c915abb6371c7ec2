"""Settings of the recipe that are off in the published one, through the command line."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from deformable_detr.structures import ImageBatch
from deformable_detr.training import Recipe
from deformable_detr.training.average import averaging
from deformable_detr.training.machine import freeze, recompute_activations
from deformable_detr.training.run_folder import RunFolder
from deformable_detr.training.state import read_state
from deformable_detr.weights import load
from helpers.models import small_model

pytestmark = pytest.mark.usefixtures("undrawn")

Train = Callable[..., int]


def test_what_is_kept_is_the_average(train: Train, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train("--out", out, "--epochs", 2, "--ema-decay", 0.9, "--batch-size", 1) == 0
    kept = load_file(out / "last.safetensors")
    tensors = read_state(out / "state.safetensors").tensors
    differing = 0
    for name, tensor in kept.items():
        assert torch.equal(tensor, tensors[f"average/module.{name}"]), name
        differing += not torch.equal(tensor, tensors[f"model/{name}"])
    assert differing > 50


def test_the_average_follows_its_definition() -> None:
    for num_steps, expected in ((1000, 0.8 * 1 + 0.2 * 3), (2, 3 / 12 * 1 + 9 / 12 * 3)):
        average = torch.tensor([1.0])
        averaging(0.8)([average], [torch.tensor([3.0])], num_steps)
        assert average.item() == pytest.approx(expected)


def test_patience_ends_a_run_that_does_not_improve_and_says_so(train: Train, tmp_path: Path,
                                                               capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    flags = ("--out", out, "--epochs", 9, "--learning-rate", 0, "--backbone-learning-rate", 0)
    said = "stopped after epoch 3 of 9: no better AP than 0.000, of epoch 1, for 2 epochs (patience: 2)"
    assert train(*flags, "--patience", 2) == 0
    assert [row["epoch"] for row in RunFolder(out).rows()] == ["1", "2", "3"]
    assert said in capsys.readouterr().err
    assert train(*flags, "--patience", 2, "--resume") == 0   # nothing is left, for a reason
    assert said in capsys.readouterr().err
    assert train(*flags, "--patience", 3, "--resume") == 0
    assert [row["epoch"] for row in RunFolder(out).rows()] == ["1", "2", "3", "4"]


def test_frozen_parts_stay(train: Train, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert train("--out", first, "--epochs", 1) == 0
    assert train("--out", second, "--epochs", 1, "--weights", first / "last.safetensors", "--freeze",
                 "encoder.,backbone.") == 0
    (old, _), (new, _) = (load(folder / "last.safetensors") for folder in (first, second))
    for name, tensor in old.state_dict().items():
        if name.startswith(("encoder.", "backbone.")):
            assert torch.equal(tensor, new.state_dict()[name]), name
    assert not torch.equal(old.pyramid.level_embedding, new.pyramid.level_embedding)


def test_a_part_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match=r"freeze: expected the beginning of .*, such as backbone.*'neck'"):
        freeze(small_model(), ("neck",))
    with pytest.raises(ValueError, match=r"freeze: expected the beginning of .*, got ''"):
        freeze(small_model(), ("",))


def test_not_everything_can_be_frozen() -> None:
    model = small_model()
    *some, last = (name for name, _ in model.named_children())
    freeze(model, tuple(some))
    with pytest.raises(ValueError, match="freeze: expected something to be left to train, got all of the model: "):
        freeze(model, (last,))


@pytest.mark.parametrize("preset", ["multi-scale", "two-stage"])
def test_recomputed_activations_change_no_gradient(preset: str) -> None:
    torch.manual_seed(2)
    batch = ImageBatch.from_images([torch.rand(3, 64, 80), torch.rand(3, 50, 64)])
    gradients = []
    for recompute in (False, True):
        model = small_model(preset, dropout=0.1).train()
        if recompute:
            recompute_activations(model)
        torch.manual_seed(1)
        predictions = model(batch)
        (predictions.logits.sum() + predictions.boxes.square().sum()).backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        if gradient is not None:
            assert torch.equal(gradient, gradients[1][name]), name


@pytest.mark.parametrize("flags", [("--precision", "bf16"), ("--deterministic",), ("--recompute",),
                                   ("--augmentation", "strong", "--class-target", "iou"),
                                   ("--precision", "bf16", "--denoising-queries", 8)])
def test_a_run_with(train: Train, tmp_path: Path, flags: tuple[str, ...]) -> None:
    out = tmp_path / "run"
    assert train("--out", out, "--epochs", 1, *flags) == 0
    assert float(RunFolder(out).rows()[0]["loss"]) > 0


def test_a_tracker_gets_every_epoch(train: Train, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "run"
    assert train("--out", out, "--epochs", 2, "--trackers", "tensorboard") == 0
    numbers = EventAccumulator(str(out / "deformable-detr")).Reload()
    heard = [(event.step, event.value) for event in numbers.Scalars("loss")]
    written = [(int(row["epoch"]), pytest.approx(float(row["loss"]), rel=1e-5)) for row in RunFolder(out).rows()]
    assert heard == written


def test_a_tracker_that_is_not_installed(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                         capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert train("--out", tmp_path / "run", "--trackers", "wandb") == 2
    assert "trackers: wandb is not installed" in capsys.readouterr().err


def test_a_total_batch_that_does_not_divide(train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--out", tmp_path / "run", "--batch-size", 3, "--total-batch", 4) == 2
    assert "total_batch: expected a multiple of batch_size x processes (3 x 1), got 4" in capsys.readouterr().err


def test_schedules() -> None:
    def factors(schedule: str) -> list[float]:
        recipe = Recipe(epochs=2, schedule=schedule, warmup_steps=2, drop_epoch=1)  # type: ignore[arg-type]
        return [recipe.rate_factor(step, steps_per_epoch=4) for step in range(8)]

    assert factors("constant") == [0.5, 1, 1, 1, 1, 1, 1, 1]
    assert factors("step") == pytest.approx([0.5, 1, 1, 1, 0.1, 0.1, 0.1, 0.1])
    assert factors("linear") == pytest.approx([0.5, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
    cosine = factors("cosine")
    assert cosine[:3] == [0.5, 1, 1]
    assert cosine[5] == pytest.approx(0.5)
    assert sorted(cosine[2:], reverse=True) == cosine[2:]


def test_images_with_rare_classes_repeat_and_the_run_says_so(train: Train, tmp_path: Path,
                                                             capsys: pytest.CaptureFixture[str]) -> None:
    """Four of five images have the class: at a threshold of 1 they come sqrt(1 / 0.8) times."""
    flags = ("--out", tmp_path / "run", "--repeat-threshold", 1, "--batch-size", 1, "--seed", 3)
    assert train(*flags, "--epochs", 1) == 0
    said = re.search(r"repeat_threshold: (\d) of 5 images come more than once, so that an epoch has (\d)",
                     capsys.readouterr().err)
    assert said
    assert int(said[2]) == 5 + int(said[1])
    assert train(*flags, "--epochs", 2, "--resume") == 0
    assert train("--out", tmp_path / "other", "--repeat-threshold", 1.5) == 2
    assert "repeat_threshold: expected at most 1, all images, got 1.5" in capsys.readouterr().err
