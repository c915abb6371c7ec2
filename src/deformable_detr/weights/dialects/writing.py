"""State dicts under the names of another code base."""

import re
from collections.abc import Mapping
from typing import Literal, get_args

from torch import Tensor

from deformable_detr.papers.config import Config
from deformable_detr.weights.dialects import detrex, huggingface, mmdetection
from deformable_detr.weights.dialects.published import published_rules
from deformable_detr.weights.dialects.reading import Translated, translated
from deformable_detr.weights.dialects.rules import Rule, to_theirs

Target = Literal["native", "published", "huggingface", "mmdetection", "mmdetection2", "detrex"]
HEAD_AGAIN = re.compile(r"transformer\.decoder\.(class|bbox)_embed\.\d+\.")     # a head's second name


def convert(state_dict: Mapping[str, Tensor], to: Target, config: Config | None = None) -> dict[str, Tensor]:
    """A state dict of any dialect under the names of another one, or under ours ("native").

    "mmdetection" is release 3. `config` says what the keys may not tell, such as whether heads that happen to be equal
    are one. A tensor that has several names there is listed under all. Raises ValueError for keys without a rule, and
    for a detector that the other code base does not have.
    """
    return written(translated(state_dict, config), to)


def written(source: Translated, to: Target) -> dict[str, Tensor]:
    """As `convert`, for a state dict whose paper is known."""
    if to == "native":
        return source.state_dict
    published = _published(source)
    paper = source.described.paper
    if to == "published":
        return published
    if to == "huggingface":
        _check(huggingface.PAPERS, paper, "transformers")
        return huggingface.with_separate_projections(_under(published, huggingface.rules(paper)))
    if to == "detrex":
        _check(detrex.PAPERS, paper, "detrex")
        return _under(published, detrex.rules(paper))
    if to not in ("mmdetection", "mmdetection2"):
        raise ValueError(f"to: expected one of {', '.join(get_args(Target))}, got {to!r}")
    _check(mmdetection.PAPERS, paper, "MMDetection")
    once = {key: value for key, value in published.items() if not HEAD_AGAIN.match(key)}
    return mmdetection.with_counters(_under(mmdetection.without_biases(once),
                                            mmdetection.rules(3 if to == "mmdetection" else 2)))


def _published(source: Translated) -> dict[str, Tensor]:
    mixed = "queries.embedding.content.weight"
    if source.described.paper == "deformable-detr" and mixed in source.state_dict:
        raise ValueError(f"state dict: {mixed}: only this package has mixed_queries")
    return to_theirs(source.state_dict, published_rules(source.described), source.described.num_layers)


def _under(published: Mapping[str, Tensor], rules: list[Rule]) -> dict[str, Tensor]:
    return to_theirs(published, rules, num_layers=0)    # no rule is for any layer


def _check(papers: tuple[str, ...], paper: str, code_base: str) -> None:
    if paper not in papers:
        raise ValueError(f"to: {code_base} has no {paper} with these tensors, only {', '.join(papers)}")
