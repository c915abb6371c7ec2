"""Packed images behave as a tuple of them."""

import pickle

import numpy as np
import pytest

from deformable_detr.datasets.image_list import ImageList, ImageRecord

IMAGES = (ImageRecord(7, "a.png", 40, 30), ImageRecord(3, "Straße/höchst.jpg", 1, 2**62),
          ImageRecord(0, "\udcff.png", 5, 5),
          ImageRecord(2**63 - 1, "日本.png", 30, 40), ImageRecord(9, "a.png", 40, 30))
PACKED = ImageList.of(IMAGES)


def test_indexing_and_iterating() -> None:
    assert len(PACKED) == 5
    assert tuple(PACKED) == IMAGES
    assert [PACKED[index] for index in range(-5, 5)] == [IMAGES[index] for index in range(-5, 5)]
    assert list(reversed(PACKED)) == list(reversed(IMAGES))
    assert IMAGES[1] in PACKED
    assert PACKED.index(IMAGES[3]) == 3
    assert [type(value) for value in (PACKED[0].id, *PACKED[0].size)] == [int, int, int]     # JSON takes no others
    for index in (5, -6):
        with pytest.raises(IndexError):
            PACKED[index]


@pytest.mark.parametrize("part", [slice(None), slice(1, 3), slice(-2, None), slice(None, None, -2), slice(3, 1)])
def test_slices(part: slice) -> None:
    assert tuple(PACKED[part]) == IMAGES[part]


def test_equality_and_sending() -> None:
    assert ImageList.of(iter(IMAGES)) == PACKED
    assert PACKED[:4] != PACKED
    assert PACKED != IMAGES
    assert pickle.loads(pickle.dumps(PACKED)) == PACKED


def test_subsets_and_searching() -> None:
    assert tuple(PACKED.subset([4, 1, 1])) == (IMAGES[4], IMAGES[1], IMAGES[1])
    assert tuple(PACKED.subset(np.array([], np.int64))) == ()
    assert PACKED.file_name_of(9) == "a.png"
    assert PACKED.file_name_of(8) is None


def test_distinct_sizes() -> None:
    sizes, which = PACKED.distinct_sizes()
    assert len(sizes) == 4
    assert [sizes[index] for index in which] == [image.size for image in IMAGES]


def test_none_at_all() -> None:
    assert tuple(ImageList.of([])) == ()
    assert ImageList.of([]).distinct_sizes()[0] == []
