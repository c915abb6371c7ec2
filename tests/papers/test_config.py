"""A config is one that a detector can be built from, or an error that says what is wrong."""

import re

import pytest

from deformable_detr import ModelConfig
from deformable_detr.papers import Config


def test_presets_are_the_published_five() -> None:
    assert list(ModelConfig.presets) == ["single-scale", "single-scale-dc5", "multi-scale", "refine", "two-stage"]
    assert ModelConfig.preset("multi-scale") == ModelConfig()
    assert ModelConfig.preset("two-stage").refine
    assert ModelConfig.preset("single-scale-dc5", num_classes=5).num_classes == 5


@pytest.mark.parametrize(("changes", "message"), [
    ({"width": 48}, "width: expected a multiple of 32"),
    ({"width": 64, "num_heads": 3}, "width: expected a multiple of num_heads (3), got 64"),
    ({"num_levels": 0}, "num_levels: expected at least 1, got 0"),
    ({"dropout": 1.0}, "dropout: expected a value in [0, 1), got 1.0"),
    ({"two_stage": True}, "two_stage: needs refine=True"),
    ({"mixed_queries": True}, "mixed_queries: needs two_stage=True"),
    ({"look_forward_twice": True}, "look_forward_twice: needs refine=True"),
    ({"num_querys": 3}, "unknown field 'num_querys'; did you mean 'num_queries'?"),
])
def test_impossible_config(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        ModelConfig.preset("multi-scale", **changes)


def test_unknown_preset() -> None:
    with pytest.raises(ValueError, match="did you mean 'two-stage'"):
        ModelConfig.preset("twostage")


@pytest.mark.parametrize("config", [
    ModelConfig.preset("two-stage"), ModelConfig.preset("two-stage", mixed_queries=True, look_forward_twice=True)])
def test_a_config_survives_a_file(config: ModelConfig) -> None:
    values = config.to_dict()
    assert values.pop("paper") == "deformable-detr"
    assert ModelConfig.from_dict(values) == config      # files from before there were several papers name none
    assert ModelConfig.from_dict({**values, "paper": "deformable-detr"}) == config
    with pytest.raises(ValueError, match=r"paper: expected one of .*deformable-detr, .*, got 'yolo'"):
        ModelConfig.from_dict({**values, "paper": "yolo"})


def test_a_config_is_shown_as_the_call_that_makes_it() -> None:
    assert repr(ModelConfig()) == "ModelConfig.preset('multi-scale')"
    assert repr(ModelConfig.preset("two-stage", num_classes=7)) == "ModelConfig.preset('two-stage', num_classes=7)"
    for config_class in Config.papers.values():
        for preset in config_class.presets:
            config = config_class.preset(preset, width=64, num_queries=17)
            assert repr(config) == f"{config_class.__name__}.preset({preset!r}, width=64, num_queries=17)"
            assert eval(repr(config), {config_class.__name__: config_class}) == config
