"""A trained detector for other classes: what it knows of a class, it keeps."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from deformable_detr.model.network import Network
from deformable_detr.model.queries import scores_objects
from deformable_detr.papers import build_model
from deformable_detr.text import quoted

logger = logging.getLogger(__name__)

CLASSIFIER = ".classify."                       # in the names of tensors with a row for each class
PROPOSAL_CLASSIFIER = "queries.head.classify."
LABELS = "queries.embedding.labels."            # DINO's, with a row for each class and one more


def with_classes(model: Network, known: Sequence[str], names: Sequence[str]) -> Network:
    """A detector of the classes `known` for the classes `names`.

    What has a row for each class keeps the rows of classes that have the same name in both, in the order of `names`;
    rows of new classes are random. So does the row after them, which means "no object" in DETR. All other tensors are
    kept. What is kept and what starts anew is logged.
    """
    if tuple(known) == tuple(names):
        return model
    row_of = {name: row for row, name in reversed(list(enumerate(known)))}
    kept = {row: row_of[name] for row, name in enumerate(names) if name in row_of}
    changed = build_model(replace(model.config, num_classes=len(names)))
    fresh = changed.state_dict()
    state = {}
    for key, tensor in model.state_dict().items():
        state[key] = tensor
        if CLASSIFIER in key or key.startswith(LABELS):
            state[key] = fresh[key].clone()
            pairs = kept if len(tensor) == len(known) else {**kept, len(names): len(known)}
            if key.startswith(PROPOSAL_CLASSIFIER) and scores_objects(model.queries):
                pairs = {0: 0}
            state[key][list(pairs)] = tensor[list(pairs.values())]
    changed.load_state_dict(state)
    _log_kept(known, names)
    return changed


def _log_kept(known: Sequence[str], names: Sequence[str]) -> None:
    kept = [name for name in names if name in known]
    new = [name for name in names if name not in known]
    dropped = [name for name in known if name not in names]
    logger.info("classes that the weights know and keep: %s", _listed(kept))
    if new:
        logger.warning("classes that are new to the weights, whose rows of the class heads start anew: %s",
                       _listed(new))
    if dropped:
        logger.info("classes that the data does not have, which are dropped: %s", _listed(dropped))


def _listed(names: Sequence[str], most: int = 20) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(map(quoted, names[:most])) + more) or "none"
