"""A trained detector for other classes: rows of known classes are kept bit for bit, whatever their order."""

from collections.abc import Sequence

import pytest
import torch

from deformable_detr.papers.config import Preset
from deformable_detr.training.fine_tuning import with_classes
from helpers.models import small_model

KNOWN = ("a", "b", "c")


@pytest.mark.parametrize("preset", ["multi-scale", "two-stage"])
@pytest.mark.parametrize("names", [("c", "a", "b"), ("b",), ("c", "b"), ("a", "b", "c", "d"), ("d", "c", "e", "a"),
                                   ("x",), ("x", "y", "z"), ("A",)])
def test_rows_follow_the_names(names: Sequence[str], preset: Preset) -> None:
    model = small_model(preset)
    before = model.state_dict()
    torch.manual_seed(5)
    after = with_classes(model, KNOWN, names).state_dict()
    assert after.keys() == before.keys()
    for key, tensor in after.items():
        if ".classify." not in key:
            assert torch.equal(tensor, before[key]), key
        elif key.startswith("queries.head."):
            assert torch.equal(tensor[0], before[key][0])
        else:
            assert len(tensor) == len(names)
            for row, name in enumerate(names):
                known = name in KNOWN and torch.equal(tensor[row], before[key][KNOWN.index(name)])
                assert known == (name in KNOWN) or key.endswith("bias"), (key, name)   # the bias starts as published


@pytest.mark.parametrize("names", [("c", "a"), ("x", "b", "y", "z"), ("x",)])
def test_the_row_after_the_classes_is_kept(names: Sequence[str]) -> None:
    """It means "no object" in DETR."""
    model = small_model("detr")
    before, after = (network.decoder.heads.of_layer(0).classify.weight
                     for network in (model, with_classes(model, KNOWN, names)))
    assert len(after) == len(names) + 1
    assert torch.equal(after[-1], before[-1])
    for row, name in enumerate(names):
        assert any(torch.equal(after[row], old) for old in before) == (name in KNOWN)


def test_labels_and_proposals_of_dino_have_classes_too() -> None:
    model = small_model("dino-4scale")
    torch.nn.init.normal_(model.queries.head.classify.bias)
    before, after = model.state_dict(), with_classes(model, KNOWN, ("c", "new", "a", "b", "more")).state_dict()
    for key in ("queries.embedding.labels.weight", "queries.head.classify.weight", "queries.head.classify.bias",
                "decoder.heads.shared.classify.weight"):
        assert torch.equal(after[key][[0, 2, 3]], before[key][[2, 0, 1]]), key
    assert len(after["queries.embedding.labels.weight"]) == 6


def test_a_known_class_scores_as_before() -> None:
    model = small_model()
    changed = with_classes(model, KNOWN, ("c", "new", "a"))
    hidden = torch.rand(1, 5, 32)
    for layer in range(2):
        old, new = (network.decoder.heads.of_layer(layer).classify(hidden) for network in (model, changed))
        torch.testing.assert_close(new[..., [0, 2]], old[..., [2, 0]])


def test_the_same_classes_are_the_same_model() -> None:
    model = small_model()
    assert with_classes(model, KNOWN, list(KNOWN)) is model


def test_what_is_kept_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        with_classes(small_model(), KNOWN, ("d", "c", "a"))
    assert caplog.messages == [
        "classes that the weights know and keep: 'c', 'a'",
        "classes that are new to the weights, whose rows of the class heads start anew: 'd'",
        "classes that the data does not have, which are dropped: 'b'"]
