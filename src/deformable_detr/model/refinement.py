"""How a box moves from one decoder layer to the next: each function is one answer.

All take a layer's head, its hidden states (B, Q, C) before the decoder's norm, the reference (B, Q, R) around which it
sampled, the start (B, Q, R) from which its head moved a box, and the boxes it predicted (B, Q, 4), all in [0, 1]. They
return the reference and the start of the next layer: the same numbers, which may differ in their gradient.
"""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from deformable_detr.model.heads import Head

References = tuple[Float[Tensor, "B Q _"], Float[Tensor, "B Q _"]]
Refinement = Callable[[Head, Tensor, Tensor, Tensor, Tensor], References]


def stay(head: Head, hidden: Float[Tensor, "B Q C"], reference: Float[Tensor, "B Q R"],  # noqa: ARG001
         start: Float[Tensor, "B Q R"], boxes: Float[Tensor, "B Q 4"]) -> References:  # noqa: ARG001
    """Every layer starts from the queries' own reference (Deformable DETR, section 4.1)."""
    return reference, start


def refine(head: Head, hidden: Float[Tensor, "B Q C"], reference: Float[Tensor, "B Q R"],  # noqa: ARG001
           start: Float[Tensor, "B Q R"], boxes: Float[Tensor, "B Q 4"]) -> References:  # noqa: ARG001
    """Each layer starts from the boxes of the one before, without their gradient (Deformable DETR, section 4.2)."""
    detached = boxes.detach()
    return detached, detached


def look_forward_twice(head: Head, hidden: Float[Tensor, "B Q C"], reference: Float[Tensor, "B Q R"],
                       start: Float[Tensor, "B Q R"], boxes: Float[Tensor, "B Q 4"]) -> References:  # noqa: ARG001
    """As `refine`, but the next layer's loss reaches this layer's head, and no further (named in DINO, section 3.5).

    The boxes are computed from the hidden states before the norm, and from a reference without gradient, so that they
    depend on this layer's delta only.
    """
    moved = head.moved(hidden, reference)
    return moved.detach(), moved
