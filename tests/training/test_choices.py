"""What `ddetr train` chooses: all that is left open, nothing that a flag decides."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from deformable_detr.cli import main
from deformable_detr.datasets.annotations import Annotations
from deformable_detr.datasets.image_list import ImageList, ImageRecord
from deformable_detr.loading.dataset import DetectionDataset
from deformable_detr.papers import Config
from deformable_detr.training import Recipe, defaults, start_choices
from deformable_detr.training.choices import plan_training
from deformable_detr.training.start import Start
from deformable_detr.weights import load

pytestmark = pytest.mark.usefixtures("undrawn")

BCCD = Path(__file__).parents[1] / "fixtures" / "bccd"


@pytest.fixture(scope="module")
def annotations() -> Annotations:
    return DetectionDataset(BCCD, "train").annotations


def many(annotations: Annotations, count: int, width: int = 640, height: int = 480) -> Annotations:
    return replace(annotations, images=ImageList.of([ImageRecord(number, f"{number}.png", width, height)
                                                     for number in range(count)]))


def test_without_a_flag_the_packaged_detector_learns_the_new_classes(
        squares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["train", str(squares), "--epochs=1", f"--out={out}"]) == 0
    printed = capsys.readouterr().err
    for setting in ("weights", "size", "batch-size", "augmentation", "learning-rate"):
        assert f"  --{setting} " in printed
    assert "--epochs " not in printed.partition("chosen")[2].partition("epoch 1/1")[0]
    settings = yaml.safe_load((out / "config.yaml").read_text())
    assert settings["preprocessing"]["size"] == 64
    assert settings["recipe"]["schedule"] == "cosine"
    assert settings["provenance"]["chosen weights"].startswith("demo: ")
    model, info = load(out / "best.safetensors")
    assert info.names == ("square",)
    assert model.config.backbone == "tf_efficientnet_lite0"


def test_a_preset_means_the_published_recipe(annotations: Annotations) -> None:
    start = Start("multi-scale")
    plan = plan_training(start, {}, annotations)
    assert (plan.start, plan.recipe, plan.reasons) == (start, Recipe(), {})
    assert plan_training(start, {"epochs": 3}, annotations).recipe == Recipe(epochs=3)


def test_settings_that_weights_leave_open_do_not_decide_the_start(annotations: Annotations) -> None:
    plan = plan_training(Start(changes={"dropout": 0.2}, nms_threshold=0.6), {}, annotations)
    assert plan.start.weights == "demo"
    assert "weights" in plan.reasons
    assert plan.origin.config.dropout == 0.2
    assert plan.origin.postprocessing.nms_threshold == 0.6


def test_weights_that_are_asked_for_keep_their_size(annotations: Annotations) -> None:
    start = Start(weights="demo")
    plan = plan_training(start, {}, annotations)
    assert plan.start == start
    assert plan.recipe.schedule == "cosine"
    assert not {"weights", "size", "width"} & plan.reasons.keys()


@pytest.mark.parametrize("asked", [{"changes": {"backbone": "test_resnet"}}, {"backbone_weights": "pretrained"}])
def test_with_a_backbone_alone_a_cpu_trains_a_model_of_the_packaged_size(
        asked: dict[str, Any], annotations: Annotations) -> None:
    plan, packaged = plan_training(Start(**asked), {}, annotations), plan_training(Start(), {}, annotations)
    config = replace(plan.origin.config, backbone="", num_classes=1)
    assert config == replace(packaged.origin.config, backbone="", num_classes=1)
    assert plan.origin.preprocessing.size == packaged.origin.preprocessing.size
    assert plan.origin.postprocessing == packaged.origin.postprocessing
    assert plan.recipe == packaged.recipe
    assert plan.start.weights is None
    assert {"width", "num_queries", "size", "nms_threshold"} <= plan.reasons.keys()


def test_a_field_of_the_model_that_is_given_is_kept_and_fits_the_others(annotations: Annotations) -> None:
    start = Start(changes={"backbone": "test_resnet", "two_stage": False, "width": 96}, size=99, nms_threshold=1)
    plan = plan_training(start, {}, annotations)
    assert (plan.origin.config.width, plan.origin.preprocessing.size, plan.origin.postprocessing.nms_threshold) == \
        (96, 99, 1)
    assert not {"width", "size", "nms_threshold", "mixed_queries"} & plan.reasons.keys()


def test_there_are_queries_for_the_fullest_image(annotations: Annotations) -> None:
    columns = ("image_index", "labels", "boxes", "areas", "crowd", "ids")
    full = replace(annotations, **{name: np.repeat(getattr(annotations, name)[:1], 80, axis=0) for name in columns})
    plan = plan_training(Start(changes={"backbone": "test_resnet"}), {}, full)
    assert plan.origin.config.num_queries == 160


def test_a_gpu_trains_the_published_size(annotations: Annotations, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (start_choices, defaults):
        monkeypatch.setattr(module, "find_machine", lambda: "gpu")
    plan = plan_training(Start(changes={"backbone": "test_resnet"}), {}, annotations)
    assert plan.origin.config.width == Config.preset("two-stage").width
    assert "size" in plan.reasons


def test_a_flag_wins_over_every_choice(annotations: Annotations) -> None:
    start, published = Start(changes={"backbone": "test_resnet"}), asdict(Recipe())
    chosen = plan_training(start, {}, annotations)
    assert chosen.recipe.denoising_queries > 0
    for name in chosen.reasons.keys() & published:
        plan = plan_training(start, {name: published[name]}, annotations)
        assert getattr(plan.recipe, name) == published[name]
        assert name not in plan.reasons
    assert plan_training(Start(size=100), {}, annotations).start.size == 100


def test_choices_follow_the_data(annotations: Annotations) -> None:
    recipes = [plan_training(Start(changes={"backbone": "test_resnet"}), {}, many(annotations, count)).recipe
               for count in (2, 50, 300, 3000, 50_000)]
    epochs = [recipe.epochs for recipe in recipes]
    assert epochs == sorted(epochs, reverse=True)
    assert epochs[0] > epochs[-1]
    assert [recipe.augmentation for recipe in recipes] == ["strong"] * 4 + ["small"]
    start = Start(changes={"backbone": "test_resnet"})
    warmups = [plan_training(start, given, many(annotations, 200)).recipe.warmup_steps
               for given in ({"epochs": 10, "batch_size": 2}, {"epochs": 10, "total_batch": 20})]
    assert warmups == [100, 10]   # a tenth of the steps
    sizes = [plan_training(Start(), {}, many(annotations, 9, 2 * side, side)).origin.preprocessing.size
             for side in (20, 200, 900)]
    assert sizes[:2] == [32, 192]
    assert sizes[2] % 32 == 0
    assert 192 < sizes[2] < 900


def test_choices_that_exclude_each_other(annotations: Annotations) -> None:
    assert plan_training(Start(), {"shard": True}, annotations).recipe.ema_decay == 0
    assert plan_training(Start(), {"augmentation": "small"}, annotations).recipe.plain_epochs == 0
    one_stage = Start(changes={"backbone": "test_resnet", "two_stage": False})
    assert plan_training(one_stage, {}, annotations).recipe.denoising_queries == 0


def test_a_recipe_that_is_impossible_is_refused(squares: Path, tmp_path: Path,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("--batch-size=0", "--epochs=0"):
        assert main(["train", str(squares), flag, f"--out={tmp_path / 'run'}"]) == 2
        assert "expected at least 1, got 0" in capsys.readouterr().err
