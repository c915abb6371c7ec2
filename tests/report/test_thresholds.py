"""Counts at a threshold equal those of an evaluation without the detections below it."""

from dataclasses import replace
from math import isnan
from pathlib import Path

import numpy as np
import pytest

from deformable_detr.report.errors import Outcome, Outcomes, judge
from deformable_detr.report.thresholds import AtThreshold, at_thresholds, best, image_counts
from helpers.handmade import evaluator_of, random_evaluator

BOX = (10.0, 10.0, 30.0, 30.0)


def at_all(outcomes: Outcomes) -> list[AtThreshold]:
    return at_thresholds(outcomes, int(outcomes.counted.sum()))


@pytest.mark.parametrize("label", [None, 0, 3])
def test_counts_are_those_without_the_detections_below(tmp_path: Path, label: int | None) -> None:
    evaluator = random_evaluator(tmp_path, 5)
    outcomes = judge(evaluator)
    objects = outcomes.counted if label is None else outcomes.counted & (outcomes.object_labels == label)
    detected = outcomes if label is None else outcomes.by_class(4)[label]
    for at in at_thresholds(detected, int(objects.sum()))[4::20]:
        evaluator.found = {key: found.above(at.threshold) for key, found in evaluator.found.items()}
        left = judge(evaluator)
        mine = np.full(len(left.kinds), True) if label is None else left.labels == label
        wrong = mine & ~left.right & (left.kinds != Outcome.IGNORED)
        assert (at.right, at.wrong) == ((mine & left.right).sum(), wrong.sum())
        assert at.right + at.missed == objects.sum()


def test_shares() -> None:
    at = AtThreshold(0.5, right=6, wrong=2, missed=4)
    assert (at.precision, at.recall, at.f1) == pytest.approx((0.75, 0.6, 2 / 3))
    nothing = AtThreshold(0.5, 0, 0, 0)
    assert all(map(isnan, (nothing.precision, nothing.recall, nothing.f1)))


def test_the_best_is_the_middle_of_equals(tmp_path: Path) -> None:
    found = [(0, 0, 0.8, BOX), (0, 0, 0.3, (60.0, 60.0, 80.0, 80.0))]
    chosen = best(at_all(judge(evaluator_of(tmp_path, [(0, 0, BOX)], found))))
    assert chosen == AtThreshold(chosen.threshold, right=1, wrong=0, missed=0)
    assert 0.5 < chosen.threshold < 0.6     # between 0.3 and 0.8


def test_the_best_threshold_is_a_half_where_nothing_is_right(tmp_path: Path) -> None:
    assert best(at_all(judge(evaluator_of(tmp_path, [(0, 0, BOX)], [])))).threshold == 0.5
    assert best(at_all(judge(evaluator_of(tmp_path, [], [(0, 0, 0.9, BOX)])))).threshold == 0.5


def test_a_score_belongs_to_its_own_threshold(tmp_path: Path) -> None:
    """Scores are float32, in which 0.29 is a little less than in float64."""
    outcomes = judge(evaluator_of(tmp_path, [(0, 0, BOX)], [(0, 0, 0.29, BOX)]))
    assert [at.right for at in at_all(outcomes)[27:30]] == [1, 1, 0]


def test_images_add_up(tmp_path: Path) -> None:
    evaluator = random_evaluator(tmp_path, 7)
    outcomes = judge(evaluator)
    at = at_all(outcomes)[29]
    counts = image_counts(outcomes, evaluator.annotations.image_index, 6, at.threshold)
    assert counts.shape == (6, 3)
    assert counts.sum(axis=0).tolist() == [at.right, at.wrong, at.missed]
    assert counts[5].tolist() == [0, 0, 0]
    nothing = replace(outcomes, scores=np.zeros_like(outcomes.scores))
    assert image_counts(nothing, evaluator.annotations.image_index, 6, 0.3)[:, :2].sum() == 0
