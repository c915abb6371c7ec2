"""Models of `transformers` read by us, and ours opened by `from_pretrained`: the same detections both ways."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from deformable_detr import ImageBatch
from deformable_detr.weights.foreign import load_foreign, save_foreign
from deformable_detr.weights.info import ModelInfo

with warnings.catch_warnings(action="ignore"):     # of imports inside transformers
    transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")

SMALL: dict[str, Any] = {
    "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "num_queries": 7,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "num_labels": 5, "dropout": 0.0,
    "use_pretrained_backbone": False}
DEFORMABLE = {"d_model": 32, "num_feature_levels": 4, "encoder_n_points": 3, "decoder_n_points": 3}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "single-scale": ("DeformableDetr", {**DEFORMABLE, "num_feature_levels": 1}),
    "single-scale-dc5": ("DeformableDetr", {**DEFORMABLE, "num_feature_levels": 1, "dilation": True}),
    "multi-scale": ("DeformableDetr", DEFORMABLE),
    "refine": ("DeformableDetr", {**DEFORMABLE, "with_box_refine": True}),
    "two-stage": ("DeformableDetr", {**DEFORMABLE, "with_box_refine": True, "two_stage": True,
                                     "two_stage_num_proposals": 9}),
    "detr": ("Detr", {"d_model": 32}),
    "detr-dc5": ("Detr", {"d_model": 32, "dilation": True}),
    "dab-detr": ("DabDetr", {"hidden_size": 32})}


def build_theirs(preset: str) -> Any:
    kind, changes = CASES[preset]
    torch.manual_seed(3)
    config = getattr(transformers, f"{kind}Config")(**SMALL, **changes)
    model = getattr(transformers, f"{kind}ForObjectDetection")(config).eval()
    for name, value in model.state_dict().items():
        if "running_var" in name:
            value.uniform_(0.5, 1.5)
        elif "running_mean" in name or "norm" in name:
            value.add_(0.1 * torch.randn_like(value))
        elif value.ndim == 1 or "bbox" in name or "class" in name:
            value.copy_(0.1 * torch.randn_like(value))
    return model


def run_both(theirs: Any, ours: torch.nn.Module) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Logits and boxes for two images of different sizes."""
    generator = torch.Generator().manual_seed(1)
    batch = ImageBatch.from_images([torch.randn(3, *size, generator=generator) for size in ((96, 128), (120, 64))])
    with torch.no_grad():
        found = ours(batch)
        other = theirs(pixel_values=batch.images, pixel_mask=(~batch.padding).long())
    return [found.logits[-1], found.boxes[-1]], [other.logits, other.pred_boxes]


def check_same(actual: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    assert actual[0].std() > 1e-3
    for one, other, tolerance in zip(actual, expected, (1e-4, 1e-5), strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() < tolerance


@pytest.mark.parametrize("preset", CASES)
def test_theirs_is_read(preset: str, tmp_path: Path) -> None:
    theirs = build_theirs(preset)
    theirs.config.id2label = {0: "ant", 1: "bee", 2: "cat", 3: "dog", 4: "猫"}
    theirs.save_pretrained(tmp_path)
    ours, info = load_foreign(tmp_path)
    assert info.names == ("ant", "bee", "cat", "dog", "猫")
    assert (info.dialect, info.unused) == ("huggingface", ())
    check_same(*run_both(theirs, ours))


@pytest.mark.parametrize("preset", CASES)
def test_ours_is_opened(preset: str, tmp_path: Path) -> None:
    kind, _ = CASES[preset]
    build_theirs(preset).save_pretrained(tmp_path / "theirs")
    ours, info = load_foreign(tmp_path / "theirs")
    for parameter in ours.parameters():     # no two heads alike
        parameter.data += 0.02 * torch.randn_like(parameter)
    save_foreign(tmp_path / "ours", ours, ModelInfo(tuple("abcde"), tuple(range(5)), info.preprocessing), "huggingface")
    theirs, loading = getattr(transformers, f"{kind}ForObjectDetection").from_pretrained(
        tmp_path / "ours", output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["mismatched_keys"]
    assert theirs.config.id2label == dict(enumerate("abcde"))
    check_same(*run_both(theirs.eval(), ours))
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "ours")
    assert dict(processor.size) == {"shortest_edge": 800, "longest_edge": 1333}
    check_same_detections(processor, theirs, ours)


def check_same_detections(processor: Any, theirs: Any, ours: torch.nn.Module) -> None:
    """Scores and labels too come from the same rule: a sigmoid, or a softmax that leaves out "no object"."""
    batch = ImageBatch.from_images([torch.randn(3, 96, 128, generator=torch.Generator().manual_seed(1))])
    with torch.no_grad():
        found = processor.post_process_object_detection(theirs(pixel_values=batch.images), 0.0, [(96, 128)])[0]
        expected = ours(batch).detections([(96, 128)], len(found["scores"]), tuple("abcde"), 1.0)[0]
    order = found["scores"].argsort(descending=True)
    assert torch.allclose(found["scores"][order], torch.from_numpy(expected.scores), atol=1e-5)
    best = found["scores"] > found["scores"].max() - 1e-5      # which may be several, in any order
    assert int(expected.labels[0]) in found["labels"][best].tolist()
    assert (found["boxes"][best] - torch.from_numpy(expected.boxes[0])).abs().amax(1).min() < 1e-2
