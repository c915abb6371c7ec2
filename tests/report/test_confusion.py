"""The confusion matrix."""

from pathlib import Path

import numpy as np
import pytest

from deformable_detr.report.confusion import MAX_CLASSES, confusion
from helpers.handmade import evaluator_of, random_evaluator

HERE = (10.0, 10.0, 30.0, 30.0)
BESIDE = (10.0, 15.0, 30.0, 35.0)       # IoU 0.6 with HERE
THERE = (60.0, 60.0, 80.0, 80.0)


def cells(matrix: np.ndarray) -> dict[tuple[int, int], int]:
    return {(int(row), int(column)): int(matrix[row, column]) for row, column in zip(*matrix.nonzero(), strict=True)}


def test_by_hand(tmp_path: Path) -> None:
    things = [(0, 0, HERE), (0, 1, THERE), (1, 2, HERE), (1, 2, THERE)]
    found = [(0, 0, 0.9, HERE), (0, 2, 0.8, THERE), (1, 1, 0.7, (40.0, 0.0, 50.0, 9.0)), (1, 2, 0.2, THERE)]
    counted = confusion(evaluator_of(tmp_path, things, found), 0.5)
    assert counted.names == ["class 0", "class 1", "class 2"]
    assert cells(counted.counts) == {(0, 0): 1, (1, 2): 1, (2, 3): 2, (3, 1): 1}


def test_the_highest_iou_is_paired_first_and_then_the_highest_score(tmp_path: Path) -> None:
    things = [(0, 0, HERE), (1, 0, HERE)]
    found = [(0, 1, 0.9, BESIDE), (0, 0, 0.6, HERE), (1, 1, 0.6, HERE), (1, 0, 0.7, HERE)]
    counts = confusion(evaluator_of(tmp_path, things, found), 0.5).counts
    assert cells(counts) == {(0, 0): 2, (3, 1): 2}


def test_crowds_are_not_counted(tmp_path: Path) -> None:
    evaluator = evaluator_of(tmp_path, [(0, 0, HERE)], [(0, 1, 0.9, THERE), (0, 2, 0.9, THERE)],
                             crowds=[(0, 1, (50.0, 50.0, 99.0, 99.0))])
    assert cells(confusion(evaluator, 0.5).counts) == {(0, 3): 1, (3, 2): 1}


@pytest.mark.parametrize("seed", range(3))
def test_every_object_is_in_its_row(tmp_path: Path, seed: int) -> None:
    evaluator = random_evaluator(tmp_path, seed)
    counts = confusion(evaluator, 0.3).counts
    truth = evaluator.annotations
    assert counts[:-1].sum(axis=1).tolist() == np.bincount(truth.labels[~truth.crowd], minlength=4).tolist()


def test_of_many_classes_those_with_mistakes_are_shown(tmp_path: Path) -> None:
    things = [(0, label, HERE) for label in range(40)]
    found = [(0, label, 0.9, HERE) for label in range(30)]
    counted = confusion(evaluator_of(tmp_path, things, found, num_classes=40), 0.5)
    assert len(counted.names) == MAX_CLASSES
    assert {f"class {label}" for label in range(30, 40)} <= set(counted.names)
    assert counted.counts.shape == (MAX_CLASSES + 1, MAX_CLASSES + 1)
