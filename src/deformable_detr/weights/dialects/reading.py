"""State dicts of any dialect under our names."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from deformable_detr.papers.config import Config
from deformable_detr.weights.dialects import detrex, huggingface, mmdetection
from deformable_detr.weights.dialects.detecting import OF_TRAINING, Dialect, detect
from deformable_detr.weights.dialects.heads import sorted_heads
from deformable_detr.weights.dialects.published import (
    Described,
    described_by_config,
    described_by_ours,
    described_by_theirs,
    published_rules,
)
from deformable_detr.weights.dialects.rules import Rule, refuse, renamed

UNUSED = (r".+\.num_batches_tracked", *OF_TRAINING)
UNUSED_BY_DIALECT: dict[Dialect, tuple[str, ...]] = {"mmdetection": mmdetection.BUFFERS, "detrex": detrex.BUFFERS}


@dataclass(frozen=True)
class Translated:
    """A state dict under our names."""

    state_dict: dict[str, Tensor]
    dialect: Dialect
    described: Described
    unused: tuple[str, ...] = ()        # keys that no model needs


def translated(state_dict: Mapping[str, Tensor], config: Config | None = None,
               refine: bool | None = None) -> Translated:
    """A state dict of any dialect under our names. `config`, or `refine`, says what its keys may not tell.

    Raises ValueError that lists the keys for which there is no rule, or names copies of one tensor that differ.
    """
    dialect = detect(state_dict)
    if dialect == "native":
        return Translated(dict(state_dict), dialect, described_by_config(config) or described_by_ours(state_dict))
    patterns = (*UNUSED, *UNUSED_BY_DIALECT.get(dialect, ()))
    unused = tuple(key for key in state_dict if any(re.fullmatch(pattern, key) for pattern in patterns))
    published, names = _published(dialect, {key: state_dict[key] for key in state_dict.keys() - set(unused)})
    described = described_by_config(config) or described_by_theirs(published)
    if described.paper == "deformable-detr":
        known = described.refine if config is not None else refine
        heads = sorted_heads(published, described.num_layers, two_stage=described.two_stage, refine=known)
        published, described = heads.state_dict, replace(described, refine=heads.refine)
    ours, _ = _renamed(published, published_rules(described), names)
    return Translated(ours, dialect, described, unused)


def _published(dialect: Dialect, theirs: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A state dict under the published names; and for each of these the name that it had."""
    if dialect == "published":
        return dict(theirs), {key: key for key in theirs}
    if dialect == "huggingface":
        rules = huggingface.reading_rules(huggingface.paper_of(theirs))
        return _renamed(huggingface.with_packed_projections(theirs), rules)
    if dialect == "detrex":
        return _renamed(theirs, detrex.rules(detrex.paper_of(theirs)))
    published, names = _renamed(theirs, mmdetection.rules(mmdetection.version_of(theirs)))
    return mmdetection.with_biases(published), names


def _renamed(state_dict: Mapping[str, Tensor], rules: Sequence[Rule],
             names: Mapping[str, str] | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Under other names; and for each of these the name that it had, as given by `names` for those had before."""
    values: dict[str, Tensor] = {}
    origins: dict[str, str] = {}
    unexpected = []
    for key, value in state_dict.items():
        origin, found = (names or {}).get(key, key), renamed(key, rules)
        if found is None:
            unexpected.append(origin)
        elif found in values and not values[found].equal(value):
            raise ValueError(f"state dict: {origin} differs from {origins[found]}, which is the same tensor")
        else:
            values[found], origins[found] = value, origin
    refuse(unexpected)
    return values, origins
