"""Which code base wrote a state dict: its keys say so."""

import re
from collections.abc import Iterable
from typing import Literal

Dialect = Literal["native", "published", "huggingface", "mmdetection", "detrex"]

# A sign in the keys, and what it tells. The first one found counts.
SIGNS: tuple[tuple[str, Dialect], ...] = (
    (r"backbone\.net\.", "native"),
    (r"bbox_head\.transformer\.", "mmdetection"),
    (r"bbox_head\.cls_branches\.", "mmdetection"),
    (r"backbone\.stem\.conv1\.", "detrex"),
    (r"model\.backbone\.(conv_encoder\.)?model\.", "huggingface"),
    (r"backbone\.0\.body\.", "published"))

# Keys of what stands beside the model while it is trained.
OF_TRAINING = (r"criterion\.empty_weight",)

# Signs of detectors that look alike and are none of ours.
OTHERS = (
    (r"model\.decoder\.layers\.0\.(ca_qcontent_proj|encoder_attn\.q_content_proj)\.", "Conditional DETR"),
    (r"model\.backbone\.(conv_encoder\.)?model\.embedder\.", "a backbone of transformers in place of timm's"),
    (r"(bbox_head\.transformer\.)?dn_query_generator\.|bbox_head\.label_embedding\.", "MMDetection's DINO"),
    (r"(mask_head|bbox_attention|bbox_mask|mask_embed)\.", "a detector with masks"))


def is_known(state_dict: Iterable[str]) -> bool:
    """Whether the keys are those of a code base that is known here."""
    return _signed(list(state_dict)) is not None


def detect(state_dict: Iterable[str]) -> Dialect:
    """The code base whose names a state dict has. Raises ValueError for keys of none, or of another detector."""
    keys = list(state_dict)
    for sign, detector in OTHERS:
        if any(re.match(sign, key) for key in keys):
            raise ValueError(f"state dict: expected a detector of this family, got the keys of {detector}")
    dialect = _signed(keys)
    if dialect is not None:
        return dialect
    shown = ", ".join(keys[:3])
    raise ValueError("state dict: expected the names of this package, the authors' code, transformers, MMDetection or "
                     f"detrex, got {len(keys)} keys such as {shown}")


def _signed(keys: list[str]) -> Dialect | None:
    return next((dialect for sign, dialect in SIGNS if any(re.match(sign, key) for key in keys)), None)
