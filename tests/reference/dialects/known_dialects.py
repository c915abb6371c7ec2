"""Known weights under the names of other code bases, and what those code bases computed with them.

A fixture is `<dialect>-<variant>.npz`: `meta` (JSON) and the dialect model's own outputs.
Its weights come by mapping: `known.py` fills the *published* names (`meta["official"]`), `meta["zeroed"]` of them are
set to 0 (what the dialect has no tensor for), and every dialect tensor is taken from one of them (`meta["source"]`).
So one fixture shows two things: a reader must turn `dialect_state(meta)` into `official_state(meta)`, and the detector
with those weights must give `arrays["pred_logits"]` and `arrays["pred_boxes"]`. Needs NumPy only (torch in `wrap`).

A source is an official key; or [key, start, stop], rows of it; or {"constant": number} with the dialect's own shape.
"""

import gzip
import json
from pathlib import Path

import numpy as np

from reference import known

# Object classes of COCO by their place in a 91-way head: what 80-way heads hold, in this order.
COCO_80 = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 27, 28, 31, 32, 33, 34,
           35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63,
           64, 65, 67, 70, 72, 73, 74, 75, 76, 77, 78, 79, 80, 81, 82, 84, 85, 86, 87, 88, 89, 90]


def load(path):
    """(meta, arrays) of a numeric fixture."""
    return known.load(path)


def names(path):
    """The JSON of a dialect and variant: keys and shapes at published size, config, sources, aliases, saved subsets."""
    path = Path(path)
    opened = gzip.open(path, "rt") if path.suffix == ".gz" else path.open()
    with opened as file:
        return json.load(file)


def official_state(meta):
    """What a reader must make of the dialect's weights: published key -> float32 array."""
    state = known.weights({"preset": meta["preset"], "seed": meta["seed"], "state_dict": meta["official"]})
    for key in meta["zeroed"]:
        state[key] = np.zeros_like(state[key])
    return state


def dialect_state(meta, official=None):
    """The same weights under the dialect's names and shapes."""
    official = official_state(meta) if official is None else official
    state = {}
    for key, source in meta["source"].items():
        shape = tuple(meta["state_dict"][key])
        if isinstance(source, dict):
            kind = np.int64 if key.endswith("num_batches_tracked") else np.float32
            state[key] = np.full(shape, source["constant"], dtype=kind)
            continue
        name, *rows = [source] if isinstance(source, str) else source
        value = official[name][slice(*rows)] if rows else official[name]
        if value.shape != shape:
            raise ValueError(f"{key}: expected {shape}, got {value.shape} from {name}")
        state[key] = value
    return state


def images(meta):
    """Normalised pictures (RGB, ImageNet mean and deviation already taken off), float32 (3, H, W)."""
    return known.images(meta)


def compare(arrays, logits, boxes, aux_logits=None, aux_boxes=None):
    """Largest absolute differences; `*_set` after matching queries, for two-stage ties in the top-k."""
    logits, boxes = np.asarray(logits, np.float32), np.asarray(boxes, np.float32)
    found = {"logits": float(np.abs(logits - arrays["pred_logits"]).max()),
             "boxes": float(np.abs(boxes - arrays["pred_boxes"]).max())}
    if aux_logits is not None and "aux_logits" in arrays:
        found["aux_logits"] = float(np.abs(np.asarray(aux_logits) - arrays["aux_logits"]).max())
    if aux_boxes is not None and "aux_boxes" in arrays:
        found["aux_boxes"] = float(np.abs(np.asarray(aux_boxes) - arrays["aux_boxes"]).max())
    if found["logits"] > 1e-3:
        worst_logits = worst_boxes = 0.0
        for got, want, box, want_box in zip(logits, arrays["pred_logits"], boxes, arrays["pred_boxes"]):
            apart = np.abs(got[:, None] - want[None]).max(-1)
            nearest = apart.argmin(1)
            worst_logits = max(worst_logits, float(apart.min(1).max()))
            worst_boxes = max(worst_boxes, float(np.abs(box - want_box[nearest]).max()))
        found.update(logits_set=worst_logits, boxes_set=worst_boxes)
    return found


def wrap(state, how):
    """One state dict as training code stores it: what `torch.save` gets. `how` is a key of WRAPPERS."""
    return WRAPPERS[how](state)


def _prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


WRAPPERS = {
    "bare": lambda s: dict(s),
    "model": lambda s: {"model": dict(s), "epoch": 49},                                   # published, DINO, detectron2
    "state_dict": lambda s: {"state_dict": dict(s), "meta": {"epoch": 50}},               # mmdet 2
    "mmengine": lambda s: {"state_dict": dict(s), "message_hub": {}, "meta": {"seed": 0}},
    "mmengine_ema": lambda s: {"state_dict": dict(s), "ema_state_dict":   # swapped at saving: state_dict has the averages
                               {"steps": s[next(iter(s))].new_zeros((), dtype=int), **_prefixed({k: v * 0 for k, v in s.items()}, "module.")}},
    "model_ema": lambda s: {"model": {k: v * 0 for k, v in s.items()}, "ema_model": _prefixed(s, "module.")},  # DINO, use_ema
    "detrex_ema": lambda s: {"model": {k: v * 0 for k, v in s.items()}, "ema_state": dict(s)},
    "ddp": lambda s: {"model": _prefixed(s, "module.")},
    "compiled": lambda s: _prefixed(s, "_orig_mod."),
    "lightning": lambda s: {"state_dict": _prefixed(s, "model."), "pytorch-lightning_version": "2.0.0",
                            "hyper_parameters": {}},
    "half": lambda s: {k: v.half() if v.is_floating_point() else v for k, v in s.items()},
}
