"""Run by test_model in a process of its own: compile and export the whole model, without graph breaks."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from deformable_detr import ImageBatch, ops
from helpers.models import small_model

torch.manual_seed(0)
batch = ImageBatch.from_images([torch.randn(3, 64, 96), torch.randn(3, 50, 70)])
model = small_model("two-stage")
with torch.no_grad():
    expected = model(batch)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")(batch)
    with ops.use_backend("reference"):
        exported = torch.export.export(model, (batch,)).module()(batch)
for predictions in (compiled, exported):
    torch.testing.assert_close(predictions.boxes, expected.boxes, atol=1e-4, rtol=0)
    torch.testing.assert_close(predictions.logits, expected.logits, atol=1e-4, rtol=0)
