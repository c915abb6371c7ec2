"""Counts from a score on: beside counting again without what lies below."""

from dataclasses import replace
from math import isnan
from pathlib import Path

import numpy as np
import pytest

from deformable_detr.report.errors import Kind, judge
from deformable_detr.report.thresholds import AtThreshold, at_thresholds, best, image_counts
from helpers.handmade import evaluator_of, random_evaluator

BOX = (10.0, 10.0, 30.0, 30.0)


@pytest.mark.parametrize("label", [None, 0, 3])
def test_as_if_the_others_had_not_been_found(tmp_path: Path, label: int | None) -> None:
    evaluator = random_evaluator(tmp_path, 5)
    thresholds = at_thresholds(judge(evaluator), label)
    for at in thresholds[4::20]:
        evaluator.found = {key: found.above(at.threshold) for key, found in evaluator.found.items()}
        left = judge(evaluator)
        mine = np.full(len(left.kinds), True) if label is None else left.labels == label
        wrong = mine & ~left.right & (left.kinds != Kind.IGNORED)
        objects = left.counted if label is None else left.counted & (left.object_labels == label)
        assert at.right == (mine & left.right).sum()
        assert at.wrong == wrong.sum()
        assert at.right + at.missed == objects.sum()


def test_shares() -> None:
    at = AtThreshold(0.5, right=6, wrong=2, missed=4)
    assert (at.precision, at.recall, at.f1) == pytest.approx((0.75, 0.6, 2 / 3))
    nothing = AtThreshold(0.5, 0, 0, 0)
    assert all(map(isnan, (nothing.precision, nothing.recall, nothing.f1)))


def test_the_best_is_the_middle_of_equals(tmp_path: Path) -> None:
    found = [(0, 0, 0.8, BOX), (0, 0, 0.3, (60.0, 60.0, 80.0, 80.0))]
    chosen = best(at_thresholds(judge(evaluator_of(tmp_path, [(0, 0, BOX)], found))))
    assert chosen == AtThreshold(chosen.threshold, right=1, wrong=0, missed=0)
    assert 0.5 < chosen.threshold < 0.6     # between 0.3 and 0.8


def test_without_anything_right_it_is_a_half(tmp_path: Path) -> None:
    assert best(at_thresholds(judge(evaluator_of(tmp_path, [(0, 0, BOX)], [])))).threshold == 0.5
    assert best(at_thresholds(judge(evaluator_of(tmp_path, [], [(0, 0, 0.9, BOX)])))).threshold == 0.5


def test_a_score_belongs_to_its_own_threshold(tmp_path: Path) -> None:
    """Scores are float32, in which 0.29 is a little less than in float64."""
    outcomes = judge(evaluator_of(tmp_path, [(0, 0, BOX)], [(0, 0, 0.29, BOX)]))
    assert [at.right for at in at_thresholds(outcomes)[27:30]] == [1, 1, 0]


def test_images_add_up(tmp_path: Path) -> None:
    evaluator = random_evaluator(tmp_path, 7)
    outcomes = judge(evaluator)
    at = at_thresholds(outcomes)[29]
    counts = image_counts(outcomes, evaluator.annotations.image_index, 6, at.threshold)
    assert counts.shape == (6, 3)
    assert counts.sum(axis=0).tolist() == [at.right, at.wrong, at.missed]
    assert counts[5].tolist() == [0, 0, 0]
    nothing = replace(outcomes, scores=np.zeros_like(outcomes.scores))
    assert image_counts(nothing, evaluator.annotations.image_index, 6, 0.3)[:, :2].sum() == 0
