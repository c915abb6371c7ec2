"""A config is one that a detector can be built from, or an error that says what is wrong."""

import re

import pytest

from deformable_detr import ModelConfig
from deformable_detr.papers.config import PRESETS


def test_presets_are_the_published_five() -> None:
    assert list(PRESETS) == ["single-scale", "single-scale-dc5", "multi-scale", "refine", "two-stage"]
    assert ModelConfig.preset("multi-scale") == ModelConfig()
    assert ModelConfig.preset("two-stage").refine
    assert ModelConfig.preset("single-scale-dc5", num_classes=5).num_classes == 5


@pytest.mark.parametrize(("changes", "message"), [
    ({"width": 48}, "width: expected a multiple of 32"),
    ({"width": 64, "num_heads": 3}, "and of num_heads (3), got 64"),
    ({"num_levels": 0}, "num_levels: expected at least 1, got 0"),
    ({"dropout": 1.0}, "dropout: expected a value in [0, 1), got 1.0"),
    ({"nms_threshold": 0.0}, "nms_threshold: expected a value in (0, 1], got 0.0"),
    ({"nms_threshold": 1.5}, "nms_threshold: expected a value in (0, 1], got 1.5"),
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


def test_parts_that_are_off_leave_no_trace_in_files() -> None:
    config = ModelConfig.preset("two-stage")
    assert set(config.to_dict()) == {
        "backbone", "dilation", "width", "num_heads", "num_levels", "num_points", "num_encoder_layers",
        "num_decoder_layers", "ffn_width", "dropout", "num_queries", "num_classes", "refine", "two_stage"}
    assert ModelConfig.from_dict(config.to_dict()) == config
    later = ModelConfig.preset("two-stage", mixed_queries=True, look_forward_twice=True, nms_threshold=0.7)
    assert ModelConfig.from_dict(later.to_dict()) == later
