"""The state dict inside what training code stores around it."""

import re
from collections.abc import Mapping
from typing import Any, TypeGuard

from torch import Tensor

from deformable_detr.weights.dialects.detecting import OF_TRAINING, is_known

# The entries that hold a state dict; the first one found counts. Averaged weights are what a run evaluates: detrex and
# DINO keep them next to the others. MMEngine has swapped them into `state_dict`; its `ema_state_dict` holds the others.
ENTRIES = ("ema_state", "ema_model", "model", "state_dict", "model_state_dict", "module")
DEPTH = 3       # of entries in entries, such as {"ema_model": {"module": ...}}
PREFIXES = ("module.", "_orig_mod.", "model.", "detr.")     # the last of a detector that a model with masks wraps


def unwrapped(content: Any) -> dict[str, Tensor]:
    """The state dict in the content of a checkpoint, without the prefixes of wrapping modules.

    Raises ValueError if there is none.
    """
    found = _state_dict_in(content, DEPTH)
    if found is not None:
        return without_prefixes(found)
    shown = content
    for entry in ENTRIES:
        if isinstance(content, Mapping) and isinstance(content.get(entry), Mapping) and content[entry]:
            shown = content[entry]
            break
    if not isinstance(shown, Mapping) or not shown:
        raise ValueError(f"expected a state dict, got {type(shown).__name__}")
    key, value = next((key, value) for key, value in shown.items() if not isinstance(value, Tensor) or key != str(key))
    raise ValueError(f"expected a state dict of tensors, got {type(value).__name__} at {key!r:.100}")


def _state_dict_in(content: Any, depth: int) -> Mapping[str, Tensor] | None:
    """The first mapping of tensors, by the order of the entries."""
    if _is_state_dict(content):
        return content
    if not isinstance(content, Mapping) or not depth:
        return None
    inner = (_state_dict_in(content.get(entry), depth - 1) for entry in ENTRIES)
    return next((found for found in inner if found is not None), None)


def _is_state_dict(content: Any) -> TypeGuard[Mapping[str, Tensor]]:
    return (isinstance(content, Mapping) and bool(content)
            and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()))


def without_prefixes(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefixes that every key has, until the keys are those of a known code base.

    Those of transformers may all begin with `model.` themselves. What a Lightning module holds beside its model has
    another prefix.
    """
    state = dict(state_dict)
    while not is_known(state):
        wrapped = [key for key in state if not any(re.fullmatch(pattern, key) for pattern in OF_TRAINING)]
        prefix = next((prefix for prefix in PREFIXES if all(key.startswith(prefix) for key in wrapped)), None)
        if prefix is None or not wrapped:
            break
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state
