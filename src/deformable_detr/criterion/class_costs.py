"""How badly the class logits of a query fit an object, for the matching: each cost is one answer."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float, Int64
from torch import Tensor

ClassCost = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class FocalCost:
    """How much the focal loss changes if the query is matched with an object of this class (Deformable DETR's code)."""

    alpha: float = 0.25
    gamma: float = 2

    def __call__(self, logits: Float[Tensor, "*layers Q K"],
                 labels: Int64[Tensor, "T"]) -> Float[Tensor, "*layers Q T"]:
        probability = logits[..., labels].sigmoid()
        negative = (1 - self.alpha) * probability**self.gamma * -(1 - probability + 1e-8).log()
        positive = self.alpha * (1 - probability)**self.gamma * -(probability + 1e-8).log()
        return positive - negative


def softmax_cost(logits: Float[Tensor, "*layers Q K"], labels: Int64[Tensor, "T"]) -> Float[Tensor, "*layers Q T"]:
    """The negative probability of the object's class (DETR, arXiv 2005.12872, section 3.1)."""
    return -logits.softmax(-1)[..., labels]
