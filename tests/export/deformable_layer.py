"""A layer of deformable attention; run with a folder, it is written there as ONNX by gathers, 2.onnx and 4.onnx."""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from deformable_detr import ops
from deformable_detr.model.attention import DeformableAttention
from deformable_detr.structures import Place, Pyramid

SHAPES = ((5, 7), (3, 4), (1, 2))
TOKENS = sum(height * width for height, width in SHAPES)


class Layer(nn.Module):
    """Tensors in and out; queries that sample on and off the maps."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.attention = DeformableAttention(32, num_heads=4, num_levels=3, num_points=2)
        nn.init.normal_(self.attention.sampling_offsets.weight)
        nn.init.normal_(self.attention.attention_weights.weight)

    def forward(self, content: Tensor, reference: Tensor, tokens: Tensor) -> Tensor:
        padding = torch.zeros(tokens.shape[:2], dtype=torch.bool)
        memory = Pyramid(tokens, tokens, padding, torch.ones(tokens.shape[0], 3, 2), SHAPES)
        return self.attention(content, Place(torch.zeros_like(content), reference), memory)


def inputs(batch: int, coordinates: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    content, reference, tokens = (torch.rand(size, generator=generator) for size in (
        (batch, 9, 32), (batch, 9, 3, coordinates), (batch, TOKENS, 32)))
    return content, reference, tokens


def write(path: Path, coordinates: int) -> None:
    """With a free batch."""
    free = {0: torch.export.Dim.DYNAMIC}
    with ops.use_backend("gather"), torch.no_grad():
        program = torch.export.export(Layer().eval(), inputs(2, coordinates), dynamic_shapes=(free, free, free))
    exported = torch.onnx.export(program, dynamo=True, opset_version=20, optimize=False, verbose=False)
    assert exported is not None
    exported.save(path)


if __name__ == "__main__":
    for coordinates in 2, 4:
        write(Path(sys.argv[1], f"{coordinates}.onnx"), coordinates)
