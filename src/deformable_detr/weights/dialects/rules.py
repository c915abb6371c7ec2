"""Renaming by rules that are read both ways.

A rule is a pair of prefixes: theirs, ours. `#` is a number that both share; `*` in theirs is any layer, since they list
a shared part once for each layer.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TypeVar

Value = TypeVar("Value")
Rule = tuple[str, str]


def to_ours(state_dict: Mapping[str, Value], rules: Sequence[Rule]) -> dict[str, Value]:
    """Their state dict under our names. Raises ValueError that lists every key for which there is no rule."""
    ours: dict[str, Value] = {}
    unexpected = []
    for key, value in state_dict.items():
        found = renamed(key, rules)
        if found is None:
            unexpected.append(key)
        else:
            ours[found] = value
    refuse(unexpected)
    return ours


def to_theirs(state_dict: Mapping[str, Value], rules: Sequence[Rule], num_layers: int) -> dict[str, Value]:
    """Our state dict, or part of it, under all names that they have for each tensor.

    A `*` becomes 0 to `num_layers` - 1. Raises ValueError that lists every key for which there is no rule.
    """
    all_names: dict[str, Value] = {}
    unexpected = []
    turned = [(ours, theirs) for theirs, ours in rules]
    for key, value in state_dict.items():
        names = _all_renamed(key, turned)
        if not names:
            unexpected.append(key)
        for name in names:
            all_names.update(dict.fromkeys(_each_layer(name, num_layers), value))
    refuse(unexpected)
    return all_names


def renamed(key: str, rules: Sequence[Rule]) -> str | None:
    """The key with its first matching beginning replaced; None if no rule matches."""
    return next(iter(_all_renamed(key, rules)), None)


def _all_renamed(key: str, rules: Iterable[Rule]) -> list[str]:
    """The key with each other beginning that some rule gives it; of rules that match the most specific counts."""
    matches = [(rule, match) for rule in rules if (match := _pattern(rule[0]).match(key))]
    most_specific = max((_specificity(rule) for rule, _ in matches), default=0)
    names = []
    for (source, target), match in matches:
        if _specificity((source, target)) == most_specific:
            names.append((target.replace("#", match["number"]) if "#" in source else target) + key[match.end():])
    return names


def _specificity(rule: Rule) -> int:
    """Characters that it demands, so that a certain number is more than any number."""
    return len(rule[0].replace("#", "").replace("*", ""))


@cache
def _pattern(source: str) -> re.Pattern[str]:
    return re.compile(re.escape(source).replace(r"\#", r"(?P<number>\d+)").replace(r"\*", r"\d+"))


def _each_layer(name: str, num_layers: int) -> list[str]:
    return [name.replace("*", str(layer)) for layer in range(num_layers)] if "*" in name else [name]


def refuse(unexpected: Sequence[str]) -> None:
    """Raise ValueError that lists the first of the unexpected keys, if there are any."""
    if unexpected:
        shown = ", ".join(unexpected[:5]) + (", ..." if len(unexpected) > 5 else "")
        raise ValueError(f"state dict: {len(unexpected)} unexpected keys: {shown}")
