"""The assignment is the cheapest, and NaN is named."""

from itertools import permutations

import pytest
import torch

from deformable_detr import Target
from deformable_detr.criterion.matching import Matches, MatchingCost, match
from deformable_detr.training import NonFiniteError


def random_targets(*counts: int) -> list[Target]:
    return [Target(torch.randint(0, 4, (count,)), 0.2 + 0.3 * torch.rand(count, 4), f"{index}.jpg")
            for index, count in enumerate(counts)]


def random_predictions(num_layers: int, batch: int, num_queries: int) -> tuple[torch.Tensor, torch.Tensor]:
    shape = num_layers, batch, num_queries
    return 2 * torch.randn(*shape, 4), 0.2 + 0.3 * torch.rand(*shape, 4)


def pairs_of(matches: Matches, layer: int, image: int) -> tuple[list[int], list[int]]:
    here = (matches.layer == layer) & (matches.image == image)
    return matches.query[here].tolist(), matches.target[here].tolist()


def test_the_cheapest_of_all_assignments() -> None:
    torch.manual_seed(0)
    targets, cost = random_targets(3, 2), MatchingCost()
    logits, boxes = random_predictions(2, 2, 5)
    matches = match(logits, boxes, targets, cost)
    for layer in range(2):
        for image, (target, first) in enumerate(zip(targets, (0, 3), strict=True)):
            costs = cost(logits[layer, image], boxes[layer, image], target)
            columns = range(costs.shape[1])
            cheapest = min(sum(costs[query, column].item() for query, column in zip(chosen, columns, strict=True))
                           for chosen in permutations(range(5), costs.shape[1]))
            queries, objects = pairs_of(matches, layer, image)
            found = sum(costs[query, index - first].item() for query, index in zip(queries, objects, strict=True))
            assert found == pytest.approx(cheapest)
            assert sorted(objects) == [first + column for column in columns]


def test_more_objects_than_queries() -> None:
    matches = match(*random_predictions(1, 1, 2), random_targets(6), MatchingCost())
    assert sorted(matches.query.tolist()) == [0, 1]


def test_images_without_objects() -> None:
    matches = match(*random_predictions(3, 2, 4), random_targets(0, 2), MatchingCost())
    assert set(matches.image.tolist()) == {1}
    assert set(matches.target.tolist()) == {0, 1}
    assert len(match(*random_predictions(3, 2, 4), random_targets(0, 0), MatchingCost()).query) == 0


def test_nan_is_named() -> None:
    logits, boxes = random_predictions(2, 3, 4)
    boxes[1, 2, 0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match=r"2\.jpg"):
        match(logits, boxes, random_targets(1, 1, 1), MatchingCost())
