"""The kind of each detection and what the errors cost: worked out by hand, and against faster-coco-eval."""

import json
from pathlib import Path

import numpy as np
import pytest

from deformable_detr.datasets.findings import Findings
from deformable_detr.datasets.formats.coco import read_coco
from deformable_detr.evaluation import CocoEvaluator
from deformable_detr.report.errors import Outcome, ap50, count_errors, judge
from helpers.handmade import Box, Found, Thing, evaluator_of, random_evaluator
from test_evaluation import PAIRS, add_results

HERE: Box = (10, 10, 30, 30)
HALF_OFF: Box = (10, 18, 30, 38)        # IoU 0.43 with HERE
THERE: Box = (60, 60, 80, 80)
NOWHERE: Box = (40, 5, 55, 20)


def costs(folder: Path, things: list[Thing], found: list[Found]) -> dict[str, float]:
    """The cost of each kind of error that costs something."""
    kinds = count_errors(judge(evaluator_of(folder, things, found)))
    return {kind.name: round(kind.cost, 3) for kind in kinds if kind.cost}


@pytest.mark.parametrize(("label", "box", "kind"), [
    (0, HERE, Outcome.RIGHT),
    (0, HALF_OFF, Outcome.LOCALISATION),
    (1, HERE, Outcome.CLASSIFICATION),
    (1, HALF_OFF, Outcome.BOTH),
    (0, NOWHERE, Outcome.BACKGROUND),
    (2, (60, 60, 80, 80), Outcome.IGNORED),    # within a crowd of its class
    (1, (60, 60, 80, 80), Outcome.BACKGROUND),
])
def test_every_kind(tmp_path: Path, label: int, box: Box, kind: Outcome) -> None:
    evaluator = evaluator_of(tmp_path, [(0, 0, HERE)], [(0, label, 0.9, box)], crowds=[(0, 2, (50, 50, 99, 99))])
    outcomes = judge(evaluator)
    assert outcomes.kinds.tolist() == [kind]
    aims = kind in (Outcome.RIGHT, Outcome.LOCALISATION, Outcome.CLASSIFICATION)
    assert outcomes.targets.tolist() == [0 if aims else -1]


def test_the_better_of_two_is_right_and_the_other_a_duplicate(tmp_path: Path) -> None:
    outcomes = judge(evaluator_of(tmp_path, [(0, 0, HERE)], [(0, 0, 0.6, HERE), (0, 0, 0.8, (11, 10, 31, 30))]))
    assert outcomes.scores.tolist() == pytest.approx([0.8, 0.6])
    assert outcomes.kinds.tolist() == [Outcome.RIGHT, Outcome.DUPLICATE]


def test_a_detection_takes_the_nearest_object_not_yet_found(tmp_path: Path) -> None:
    things = [(0, 0, HERE), (0, 0, (12, 10, 32, 30))]
    outcomes = judge(evaluator_of(tmp_path, things, [(0, 0, 0.9, (12, 10, 32, 30)), (0, 0, 0.8, (12, 10, 32, 30))]))
    assert outcomes.kinds.tolist() == [Outcome.RIGHT, Outcome.RIGHT]
    assert outcomes.targets.tolist() == [1, 0]


def test_detections_in_an_image_without_objects_are_background(tmp_path: Path) -> None:
    outcomes = judge(evaluator_of(tmp_path, [(0, 0, HERE)], [(1, 0, 0.9, HERE)]))
    assert outcomes.kinds.tolist() == [Outcome.BACKGROUND]
    assert outcomes.missed.tolist() == [True]


def test_what_each_kind_costs(tmp_path: Path) -> None:
    right: Found = (0, 0, 0.5, HERE)
    one: list[Thing] = [(0, 0, HERE)]
    assert costs(tmp_path, one, [right]) == {}
    assert costs(tmp_path, one, [right, (0, 0, 0.9, NOWHERE)]) == {"background": 0.5}
    assert costs(tmp_path, one, [right, (0, 0, 0.4, NOWHERE)]) == {}            # below all that is right
    assert costs(tmp_path, one, [(0, 0, 0.9, HALF_OFF)]) == {"localisation": 1}
    assert costs(tmp_path, one, [(0, 1, 0.9, HERE)]) == {"classification": 1}
    # Two objects, one found: precision 1 up to recall 0.5, that is at 51 of 101 places.
    two: list[Thing] = [(0, 0, HERE), (0, 0, THERE)]
    assert costs(tmp_path, two, [right]) == {"missed": round(50 / 101, 3)}


def test_fixing_gives_an_object_to_the_best_detection_unless_one_has_found_it(tmp_path: Path) -> None:
    one: list[Thing] = [(0, 0, HERE)]
    aiming: list[Found] = [(0, 0, 0.9, HALF_OFF), (0, 0, 0.8, HALF_OFF)]
    assert costs(tmp_path, one, aiming) == {"localisation": 1}
    # Both are removed, and the one that found it at 0.5 comes first.
    assert costs(tmp_path, one, [*aiming, (0, 0, 0.5, HERE)]) == {"localisation": round(1 - 1 / 3, 3)}


def test_a_class_whose_objects_are_all_missed(tmp_path: Path) -> None:
    things = [(0, 0, HERE), (0, 1, THERE)]
    assert costs(tmp_path, things, [(0, 0, 0.9, HERE)]) == {"missed": 0.5}


def test_nothing_to_find_and_nothing_found(tmp_path: Path) -> None:
    kinds = count_errors(judge(evaluator_of(tmp_path, [], [(0, 0, 0.9, HERE)])))
    assert {kind.name: kind.count for kind in kinds if kind.count} == {"background": 1}
    assert all(np.isnan(kind.cost) for kind in kinds)
    kinds = count_errors(judge(evaluator_of(tmp_path, [(0, 0, HERE)], [])))
    assert {kind.name: kind.count for kind in kinds if kind.count} == {"missed": 1}


@pytest.mark.parametrize("seed", range(12))
def test_ap50_is_that_of_coco(tmp_path: Path, seed: int) -> None:
    evaluator = random_evaluator(tmp_path, seed)
    assert ap50(judge(evaluator)) == pytest.approx(evaluator.summarize().AP50, abs=1e-12)


@pytest.mark.parametrize("pair", [
    ("instances_val2014_100.json", "instances_val2014_fakebbox100_results.json"),
    ("gt_ignore_test.json", "dt_ignore_test.json"),
])
def test_ap50_of_the_known_pairs(pair: tuple[str, str]) -> None:
    evaluator = CocoEvaluator(read_coco(PAIRS / pair[0], Findings(strict=True)))
    add_results(evaluator, json.loads((PAIRS / pair[1]).read_text()))
    outcomes = judge(evaluator)
    assert ap50(outcomes) == pytest.approx(evaluator.summarize().AP50, abs=1e-12)
    if pair[0].startswith("instances"):     # as tidecv 1.0.1 counts them
        assert {kind.name: kind.count for kind in count_errors(outcomes)} == {
            "classification": 83, "localisation": 1, "both": 0, "duplicate": 1, "background": 0, "missed": 97}


@pytest.mark.parametrize("seed", range(4))
def test_every_detection_has_one_kind_and_no_fix_makes_ap_worse(tmp_path: Path, seed: int) -> None:
    outcomes = judge(random_evaluator(tmp_path, seed))
    kinds = count_errors(outcomes)
    wrong = {kind.name: kind.count for kind in kinds[:-1]}
    assert sum(wrong.values()) + np.isin(outcomes.kinds, (Outcome.RIGHT, Outcome.IGNORED)).sum() == len(outcomes.kinds)
    assert all(kind.cost >= 0 for kind in kinds)
    assert sum(number > 0 for number in wrong.values()) >= 4
    found = np.bincount(outcomes.targets[outcomes.right], minlength=len(outcomes.counted))
    assert set(found) == {0, 1}
