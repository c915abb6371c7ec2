"""`model.half()`, `.bfloat16()` and `.double()` run, and predict what the model predicts in float32."""

import pytest
import torch

from deformable_detr import ImageBatch, ops
from helpers.models import small_model

TOLERANCE = {torch.float16: 0.02, torch.bfloat16: 0.1, torch.float64: 1e-5}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("preset", ["single-scale", "refine", "two-stage"])
@pytest.mark.parametrize("backend", ["reference", "numba"])
@torch.no_grad()
def test_another_precision_predicts_nearly_the_same(preset: str, dtype: torch.dtype, backend: str) -> None:
    torch.manual_seed(1)
    batch = ImageBatch.from_images([torch.randn(3, 64, 96), torch.randn(3, 50, 70)])
    model = small_model(preset, num_queries=200)    # all tokens are proposals: rounding cannot choose others
    expected = model(batch)
    with ops.use_backend("auto" if dtype == torch.float64 else backend):
        found = model.to(dtype)(batch)
    assert found.logits.dtype == dtype
    assert found.boxes.dtype == torch.promote_types(dtype, torch.float32)
    order = [predictions.boxes[-1].double().sort(dim=1).values for predictions in (found, expected)]
    torch.testing.assert_close(order[0], order[1], atol=TOLERANCE[dtype], rtol=0)
