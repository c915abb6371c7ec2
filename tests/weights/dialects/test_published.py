"""The published names, there and back, for parts of a state dict too. Whole ones: test_parity."""

import pytest
import torch

from deformable_detr.papers import ModelConfig
from deformable_detr.weights import from_official, to_official
from helpers.models import small_model


@pytest.mark.parametrize("preset", ModelConfig.presets)
def test_there_and_back(preset: str) -> None:
    backbone = "test_resnet" if "dc5" in preset else "test_efficientnet"
    state = small_model(preset, backbone=backbone).state_dict()
    returned = from_official(to_official(state))
    assert returned.keys() == state.keys()
    assert all(returned[key] is state[key] for key in state)


def test_a_shared_head_has_the_name_of_every_layer() -> None:
    model = small_model("multi-scale", num_decoder_layers=3)
    official = to_official(model.state_dict())
    assert [key for key in official if "class_embed" in key and "weight" in key] == [
        "class_embed.0.weight", "class_embed.1.weight", "class_embed.2.weight"]


def test_subsets_and_other_values() -> None:
    assert to_official({"encoder.layers.3.feed_forward.expand.bias": "anything"}) == {
        "transformer.encoder.layers.3.linear1.bias": "anything"}
    assert to_official({"queries.head.classify.bias": 1}) == {
        "class_embed.6.bias": 1, "transformer.decoder.class_embed.6.bias": 1}


def test_unknown_keys_are_reported() -> None:
    official = to_official(small_model().state_dict())
    with pytest.raises(ValueError, match=r"2 unexpected keys: mask_head\.weight, bbox_embed\.x"):
        from_official({**official, "mask_head.weight": torch.ones(1), "bbox_embed.x": torch.ones(1)})
    with pytest.raises(ValueError, match=r"1 unexpected keys: encoder\.nothing"):
        to_official({"encoder.nothing": 1})


def test_missing_parts_are_reported() -> None:
    official = to_official(small_model().state_dict())
    kept = {key: value for key, value in official.items() if not key.startswith(("backbone", "query_embed"))}
    with pytest.raises(ValueError, match=r"nothing for backbone$"):
        from_official(kept)


def test_what_the_published_code_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\.content\.weight: the published code has no mixed_queries"):
        to_official(small_model(mixed_queries=True).state_dict())
    twice = small_model(look_forward_twice=True).state_dict()   # no weight of its own, and the same boxes
    assert from_official(to_official(twice)).keys() == twice.keys()
