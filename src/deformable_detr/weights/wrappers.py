"""The state dict inside what training code stores around it."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from deformable_detr.weights.dialects.detecting import is_known

# The entries that hold a state dict; the first one found counts. Averaged weights are what a run evaluates: detrex and
# DINO keep them next to the others. MMEngine has swapped them into `state_dict`; its `ema_state_dict` holds the others.
ENTRIES = ("ema_state", "ema_model", "model", "state_dict", "model_state_dict")
PREFIXES = ("module.", "_orig_mod.", "model.")


def unwrapped(content: Any) -> dict[str, Tensor]:
    """The state dict in the content of a checkpoint, without the prefixes of wrapping modules.

    Raises ValueError if there is none.
    """
    found = content
    for entry in ENTRIES:
        if isinstance(content, Mapping) and isinstance(content.get(entry), Mapping) and content[entry]:
            found = content[entry]
            break
    if not isinstance(found, Mapping) or not found:
        raise ValueError(f"expected a state dict, got {type(found).__name__}")
    for key, value in found.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise ValueError(f"expected a state dict of tensors, got {type(value).__name__} at {key!r:.100}")
    return without_prefixes(found)


def without_prefixes(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefixes that every key has, until the keys are those of a known code base.

    Those of transformers may all begin with `model.` themselves.
    """
    state = dict(state_dict)
    while not is_known(state):
        prefix = next((prefix for prefix in PREFIXES if all(key.startswith(prefix) for key in state)), None)
        if prefix is None:
            break
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state
