"""The published code's names of weights <-> ours. A rename in both directions; no value is touched."""

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

Value = TypeVar("Value")

PUBLISHED_DECODER_LAYERS = 6

# (published prefix, ours), tried in this order; `#` stands for a number that both sides share.
PREFIXES = [
    ("backbone.0.body.", "backbone.net."),
    ("input_proj.", "pyramid.projections."),
    ("transformer.level_embed", "pyramid.level_embedding"),
    ("transformer.encoder.layers.#.self_attn.", "encoder.layers.#.attention."),
    ("transformer.encoder.layers.#.norm1.", "encoder.layers.#.attention_norm."),
    ("transformer.encoder.layers.#.linear1.", "encoder.layers.#.feed_forward.expand."),
    ("transformer.encoder.layers.#.linear2.", "encoder.layers.#.feed_forward.contract."),
    ("transformer.encoder.layers.#.norm2.", "encoder.layers.#.feed_forward.norm."),
    ("transformer.decoder.layers.#.cross_attn.", "decoder.layers.#.cross_attention."),
    ("transformer.decoder.layers.#.norm1.", "decoder.layers.#.cross_attention_norm."),
    ("transformer.decoder.layers.#.self_attn.", "decoder.layers.#.self_attention."),
    ("transformer.decoder.layers.#.norm2.", "decoder.layers.#.self_attention_norm."),
    ("transformer.decoder.layers.#.linear1.", "decoder.layers.#.feed_forward.expand."),
    ("transformer.decoder.layers.#.linear2.", "decoder.layers.#.feed_forward.contract."),
    ("transformer.decoder.layers.#.norm3.", "decoder.layers.#.feed_forward.norm."),
    ("transformer.reference_points.", "queries.reference."),
    ("query_embed.", "queries.embedding."),
    ("transformer.enc_output.", "queries.memory_projection."),
    ("transformer.enc_output_norm.", "queries.memory_norm."),
    ("transformer.pos_trans.", "queries.box_projection."),
    ("transformer.pos_trans_norm.", "queries.box_norm."),
]
ATTENTION = [("value_proj.", "value_projection."), ("output_proj.", "output_projection.")]
BOX_LAYERS = [("layers.0.", "0."), ("layers.1.", "2."), ("layers.2.", "4.")]   # ReLUs stand between ours
HEADS = [("class_embed.", "classify."), ("bbox_embed.", "locate.")]
MIXED_QUERIES = "queries.content.weight"   # of no published detector
HEAD_COPIES = "transformer.decoder."   # refining checkpoints name each head a second time, under this prefix


def from_official(state_dict: Mapping[str, Value]) -> dict[str, Value]:
    """The published code's state dict under our names.

    Each head that the published code names twice comes once. Raises ValueError that lists every key which
    belongs to no published detector, and the parts that are missing altogether.
    """
    heads = _OfficialHeads(state_dict)
    renamed: dict[str, Value] = {}
    unexpected = []
    for key, value in state_dict.items():
        ours = heads.rename(key) if _is_head(key) else _rename(key, published_first=True)
        if ours is None:
            unexpected.append(key)
        else:
            renamed[ours] = value
    _report(unexpected, _missing_parts(renamed))
    return renamed


def to_official(state_dict: Mapping[str, Value]) -> dict[str, Value]:
    """Anything keyed like our state dict (a subset, gradients, ...) under the published names.

    A head gets all of its published names: a shared one that of every decoder layer, a refining one that of the
    decoder's copy too. Raises ValueError for a key which is none of ours, or of a part that the published code lacks.
    """
    if MIXED_QUERIES in state_dict:
        raise ValueError(f"state dict: {MIXED_QUERIES}: the published code has no mixed_queries")
    num_layers = _num_decoder_layers(state_dict)
    two_stage = any(key.startswith("queries.head.") for key in state_dict)
    renamed: dict[str, Value] = {}
    unexpected = []
    for key, value in state_dict.items():
        if key.startswith(("decoder.heads.", "queries.head.")):
            names = _official_head_names(key, num_layers, two_stage)
        else:
            name = _rename(key, published_first=False)
            names = [name] if name else []
        if not names:
            unexpected.append(key)
        renamed.update(dict.fromkeys(names, value))
    _report(unexpected, [])
    return renamed


def _rename(key: str, *, published_first: bool) -> str | None:
    """One key in the other convention, or None."""
    for published, ours in PREFIXES:
        source, target = (published, ours) if published_first else (ours, published)
        match = re.match(re.escape(source).replace(r"\#", r"(\d+)"), key)
        if match:
            prefix = target.replace("#", match[1]) if match.groups() else target
            return prefix + _swap(key[match.end():], ATTENTION, published_first=published_first)
    return None


def _swap(rest: str, pairs: list[tuple[str, str]], *, published_first: bool) -> str:
    for published, ours in pairs:
        source, target = (published, ours) if published_first else (ours, published)
        if rest.startswith(source):
            return target + rest[len(source):]
    return rest


def _is_head(key: str) -> bool:
    return key.removeprefix(HEAD_COPIES).startswith(("class_embed.", "bbox_embed."))


class _OfficialHeads:
    """Which published head belongs to which of our parts: that depends on the kind of detector."""

    def __init__(self, state_dict: Mapping[str, object]) -> None:
        self.refining = any(key.startswith(f"{HEAD_COPIES}bbox_embed.") for key in state_dict)
        self.two_stage = any(key.startswith("transformer.enc_output.") for key in state_dict)
        self.num_layers = _count(state_dict, r"transformer\.decoder\.layers\.(\d+)\.")

    def rename(self, key: str) -> str | None:
        match = re.fullmatch(r"(class_embed\.|bbox_embed\.)(\d+)\.(.+)", key.removeprefix(HEAD_COPIES))
        if match is None:
            return None
        part = dict(HEADS)[match[1]] + _swap(match[3], BOX_LAYERS, published_first=True)
        if self.two_stage and int(match[2]) == self.num_layers:
            return f"queries.head.{part}"
        return f"decoder.heads.layers.{match[2]}.{part}" if self.refining else f"decoder.heads.shared.{part}"


def _official_head_names(key: str, num_layers: int, two_stage: bool) -> list[str]:
    """All published names of one of our head weights."""
    match = re.fullmatch(r"(?:queries\.head|decoder\.heads\.(?:shared|layers\.(\d+)))\.(classify\.|locate\.)(.+)", key)
    if match is None:
        return []
    kind = {ours: published for published, ours in HEADS}[match[2]]
    rest = _swap(match[3], BOX_LAYERS, published_first=False) if kind == "bbox_embed." else match[3]
    if ".shared." in key:
        return [f"{kind}{layer}.{rest}" for layer in range(num_layers)]
    index = num_layers if key.startswith("queries.") else int(match[1])
    names = [f"{kind}{index}.{rest}"]
    if kind == "bbox_embed." or two_stage:
        names.append(HEAD_COPIES + names[0])
    return names


def _num_decoder_layers(state_dict: Mapping[str, object]) -> int:
    return _count(state_dict, r"decoder\.(?:heads\.)?layers\.(\d+)\.") or PUBLISHED_DECODER_LAYERS


def _count(keys: Iterable[str], pattern: str) -> int:
    """One more than the largest number that `pattern` finds at the start of the keys; 0 when it finds none."""
    found = [int(match[1]) for match in (re.match(pattern, key) for key in keys) if match]
    return max(found, default=-1) + 1


def _missing_parts(renamed: Mapping[str, object]) -> list[str]:
    parts = ["backbone.", "pyramid.", "encoder.", "queries.", "decoder.layers.", "decoder.heads."]
    return [part.rstrip(".") for part in parts if not any(key.startswith(part) for key in renamed)]


def _report(unexpected: list[str], missing: list[str]) -> None:
    problems = []
    if unexpected:
        shown = ", ".join(unexpected[:5]) + (", ..." if len(unexpected) > 5 else "")
        problems.append(f"{len(unexpected)} unexpected keys: {shown}")
    if missing:
        problems.append(f"nothing for {', '.join(missing)}")
    if problems:
        raise ValueError("state dict: " + "; ".join(problems))
