"""Published weights by short names: where they are, and what is known about them.

AP is on COCO val2017, as published by the authors of each paper (their READMEs). No repository could be reached when
this list was written: ids and licences are from memory, and no revision or hash is pinned. What a repository itself
reports of a file is checked against its content (`hub.py`).
"""

from typing import NamedTuple

COCO = "COCO, 80 classes"


class Named(NamedTuple):
    """Published weights."""

    repository: str             # on the Hugging Face Hub
    preset: str
    ap: float                   # in points, on COCO val2017
    megabytes: int              # about: the number of parameters times four bytes
    data: str = COCO
    licence: str = "Apache-2.0"
    revision: str | None = None     # a commit
    sha256: str | None = None       # of its file of weights


SENSETIME = "SenseTime/deformable-detr"
NAMED: dict[str, Named] = {
    "deformable-detr-single-scale": Named(f"{SENSETIME}-single-scale", "single-scale", 39.4, 136),
    "deformable-detr-single-scale-dc5": Named(f"{SENSETIME}-single-scale-dc5", "single-scale-dc5", 41.5, 136),
    "deformable-detr": Named(SENSETIME, "multi-scale", 44.5, 160),
    "deformable-detr-refine": Named(f"{SENSETIME}-with-box-refine", "refine", 46.2, 164),
    "deformable-detr-two-stage": Named(f"{SENSETIME}-with-box-refine-two-stage", "two-stage", 46.9, 165),
    "detr": Named("facebook/detr-resnet-50", "detr", 42.0, 166),
    "detr-dc5": Named("facebook/detr-resnet-50-dc5", "detr-dc5", 43.3, 166),
    "dab-detr": Named("IDEA-Research/dab-detr-resnet-50", "dab-detr", 42.2, 175)}
ALIASES = {"coco": "deformable-detr-two-stage"}     # the best of them


def named(name: str) -> Named | None:
    """The weights of this short name, None if there are none."""
    return NAMED.get(ALIASES.get(name, name))
