"""The heads of Deformable DETR in foreign state dicts: one for all layers, or one for each.

Code bases list a head once for each layer even where all layers share it, some list it again under the decoder, and
files often keep only one of the names.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

HEAD = re.compile(r"(transformer\.decoder\.)?(class_embed|bbox_embed)\.(\d+)\.(.+)")
AGAIN = "transformer.decoder.bbox_embed."

Head = dict[tuple[str, int], dict[str, Tensor]]     # by part and number, then by the rest of the key


class Heads(NamedTuple):
    """A published state dict with each head once, and whether each layer has its own (box refinement)."""

    state_dict: dict[str, Tensor]
    refine: bool


def sorted_heads(published: Mapping[str, Tensor], num_layers: int, *, two_stage: bool,
                 refine: bool | None = None) -> Heads:
    """The heads of `num_layers` decoder layers, and one for the proposals if `two_stage`.

    Where `refine` is not known, layers have heads of their own if these are listed under the decoder too, or differ.
    A class head that is listed once belongs to all layers. Raises ValueError for copies that differ, for
    layers that differ where they should not, and for two stages with one head for all, which ours cannot be.
    """
    heads, others = _split(published)
    if refine is None:
        refine = any(key.startswith(AGAIN) for key in published) or _differ(heads)
    elif not refine and _differ(heads):
        raise ValueError("the heads of the decoder's layers differ, while the config says that all layers share one")
    if two_stage and not refine:
        raise ValueError("two stages: expected heads of its own for each layer (box refinement), got one for all")
    wanted = range((num_layers if refine else 1) + two_stage)
    kept = dict(others)
    for part in ("class_embed", "bbox_embed"):
        numbers = [number for name, number in heads if name == part]
        for number in wanted:
            is_shared = len(numbers) == 1 and (part == "class_embed" or not refine)
            source = numbers[0] if is_shared else number
            kept |= {f"{part}.{number}.{rest}": value for rest, value in heads.get((part, source), {}).items()}
    return Heads(kept, refine)


def _split(published: Mapping[str, Tensor]) -> tuple[Head, dict[str, Tensor]]:
    """The heads, and everything else."""
    heads: Head = {}
    others: dict[str, Tensor] = {}
    for key, value in published.items():
        match = HEAD.fullmatch(key)
        if match is None:
            others[key] = value
            continue
        head = heads.setdefault((match[2], int(match[3])), {})
        known = head.setdefault(match[4], value)
        if known is not value and not known.equal(value):
            raise ValueError(f"{key}: differs from its other copy in the state dict")
    return heads, others


def _differ(heads: Head) -> bool:
    """Whether two layers have different heads."""
    first: dict[tuple[str, str], Tensor] = {}
    return any(not first.setdefault((part, rest), value).equal(value)
               for (part, _), head in heads.items() for rest, value in head.items())
