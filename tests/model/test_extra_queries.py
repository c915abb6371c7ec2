"""Queries that training asks beside the ordinary ones: they change no answer, and groups do not see each other."""

import pytest
import torch

from deformable_detr import ImageBatch
from deformable_detr.structures import ExtraQueries, Predictions
from helpers.models import small_model

GROUPS = torch.tensor([[1, 1, 2, 2, -1], [1, 2, 3, -1, -1]])


@pytest.fixture
def batch() -> ImageBatch:
    torch.manual_seed(1)
    return ImageBatch.from_images([torch.randn(3, 64, 96), torch.randn(3, 50, 70)])


def asked(batch: ImageBatch, extra: ExtraQueries | None, **changes: object) -> Predictions:
    model = small_model(**changes)
    for head in model.decoder.heads.layers:   # which at first say the same of everything
        torch.nn.init.normal_(head.locate[-1].weight)
        torch.nn.init.normal_(head.classify.weight)
    with torch.no_grad():
        return model(batch, extra)


@pytest.mark.parametrize("mixed_queries", [False, True])
def test_the_answer_stays_the_same(batch: ImageBatch, mixed_queries: bool) -> None:
    extra = ExtraQueries(torch.rand(2, 5, 4), GROUPS)
    without = asked(batch, None, mixed_queries=mixed_queries)
    beside = asked(batch, extra, mixed_queries=mixed_queries)
    assert without.extra is None
    torch.testing.assert_close(beside.logits, without.logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(beside.boxes, without.boxes, atol=1e-5, rtol=0)
    assert beside.extra is not None
    assert beside.extra.logits.shape == (2, 2, 5, 3)
    assert beside.extra.boxes.shape == (2, 2, 5, 4)
    assert beside.extra.logits.isfinite().all()


@pytest.mark.parametrize("mixed_queries", [False, True])
def test_who_sees_whom(batch: ImageBatch, mixed_queries: bool) -> None:
    """Another box in one slot changes the answers of its own group alone; an empty slot's changes none."""
    boxes = 0.2 + 0.6 * torch.rand(2, 5, 4)
    before = asked(batch, ExtraQueries(boxes, GROUPS), mixed_queries=mixed_queries).extra
    for slot, changed in [(0, [[0, 1], [0]]), (2, [[2, 3], [2]]), (4, [[4], [3, 4]])]:
        moved = boxes.clone()
        moved[:, slot] = 0.9 - 0.5 * moved[:, slot]
        after = asked(batch, ExtraQueries(moved, GROUPS), mixed_queries=mixed_queries).extra
        different = (after.boxes - before.boxes).abs().amax((0, -1)) > 1e-6
        assert [row.nonzero().flatten().tolist() for row in different] == changed


def test_a_box_that_was_proposed_is_answered_like_the_proposal(batch: ImageBatch) -> None:
    """In a group that is the whole of the ordinary ones, each extra query stands where an ordinary one does."""
    model = small_model()
    with torch.no_grad():
        pyramid = model.pyramid(model.backbone(batch))
        queries = model.queries(model.encoder(pyramid))
        groups = torch.full(queries.reference.shape[:2], 1)
        again = model.queries(model.encoder(pyramid), ExtraQueries(queries.reference, groups))
    for whole in (again.content, again.position, again.reference):
        ordinary, extra = whole.chunk(2, dim=1)
        assert torch.equal(ordinary, extra)


def test_one_image_of_a_batch(batch: ImageBatch) -> None:
    predictions = asked(batch, ExtraQueries(torch.rand(2, 5, 4), GROUPS))
    extra = predictions.image(1).extra
    assert extra is not None
    assert torch.equal(extra.logits[:, 0], predictions.extra.logits[:, 1])
    assert torch.equal(extra.boxes[:, 0], predictions.extra.boxes[:, 1])


def test_only_boxes_can_be_asked_about(batch: ImageBatch) -> None:
    with pytest.raises(ValueError, match="extra_queries: expected none for learned queries"):
        small_model("refine")(batch, ExtraQueries(torch.rand(2, 5, 4), GROUPS))
