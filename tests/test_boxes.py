"""Box formats and overlaps, against torchvision and against what must hold."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import generalized_box_iou

from deformable_detr.boxes import cxcywh_to_xyxy, generalized_iou, inverse_sigmoid, xyxy_to_cxcywh

coordinates = st.floats(-100, 100, width=32)
sizes = st.floats(0.125, 100, width=32)
boxes = st.lists(st.tuples(coordinates, coordinates, sizes, sizes), min_size=1, max_size=8).map(torch.tensor)


@settings(deadline=None)
@given(boxes)
def test_formats_turn_back(cxcywh: torch.Tensor) -> None:
    torch.testing.assert_close(xyxy_to_cxcywh(cxcywh_to_xyxy(cxcywh)), cxcywh, atol=1e-4, rtol=1e-5)


@settings(deadline=None)
@given(boxes, boxes)
def test_generalized_iou_is_torchvisions(some: torch.Tensor, others: torch.Tensor) -> None:
    some, others = cxcywh_to_xyxy(some.double()), cxcywh_to_xyxy(others.double())
    overlap = generalized_iou(some[:, None], others)
    torch.testing.assert_close(overlap, generalized_box_iou(some, others))
    assert (overlap >= -1).all()
    assert (overlap <= 1 + 1e-9).all()


def test_generalized_iou_of_the_same_box_is_one() -> None:
    box = torch.tensor([[1.0, 2.0, 3.0, 5.0]])
    assert generalized_iou(box, box).item() == pytest.approx(1)


def test_generalized_iou_of_two_points_has_no_answer() -> None:
    point = torch.tensor([[1.0, 2.0, 1.0, 2.0]])
    assert generalized_iou(point, point).isnan().all()


def test_inverse_sigmoid_inverts_and_stays_finite() -> None:
    x = torch.tensor([0.0, 1e-6, 0.25, 0.5, 0.999, 1.0, 1.5, -1.0])
    y = inverse_sigmoid(x)
    assert y.isfinite().all()
    torch.testing.assert_close(y.sigmoid(), x.clamp(0, 1), atol=2e-5, rtol=0)
