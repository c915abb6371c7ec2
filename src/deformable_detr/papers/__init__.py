"""The family: each paper is one file, which holds its config, its network, its criterion and its presets."""

from typing import TYPE_CHECKING

from deformable_detr.lazy import lazy_names

if TYPE_CHECKING:
    from deformable_detr.papers.family import (
        PAPERS,
        Config,
        DeformableDETR,
        ModelConfig,
        build_criterion,
        build_model,
        draw_denoising,
    )

__all__ = ["PAPERS", "Config", "DeformableDETR", "ModelConfig", "build_criterion", "build_model", "draw_denoising"]

# Config too comes from there: it finds the presets of papers whose files have been imported.
__getattr__, __dir__ = lazy_names({
    "deformable_detr.papers.family":
        "PAPERS Config DeformableDETR ModelConfig build_criterion build_model draw_denoising"})
