"""Multi-scale deformable attention as a layer (paper, section 4.1, equation 3)."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from deformable_detr.ops import fused_ms_deform_attn
from deformable_detr.structures import LevelShapes


class DeformableAttention(nn.Module):
    """Each query reads M heads x L levels x P points of the tokens, at learned offsets from its reference."""

    def __init__(self, width: int, num_heads: int, num_levels: int, num_points: int) -> None:
        super().__init__()
        self.num_heads, self.num_levels, self.num_points = num_heads, num_levels, num_points
        samples = num_heads * num_levels * num_points
        self.sampling_offsets = nn.Linear(width, samples * 2)
        self.attention_weights = nn.Linear(width, samples)
        self.value_projection = nn.Linear(width, width)
        self.output_projection = nn.Linear(width, width)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As published: every head looks its own way, each point one step farther; all samples weigh the same."""
        for layer in (self.value_projection, self.output_projection):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        for layer in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        angles = torch.arange(self.num_heads, dtype=torch.float32) * (2 * math.pi / self.num_heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
        directions = directions / directions.abs().amax(dim=-1, keepdim=True)
        steps = torch.arange(1, self.num_points + 1, dtype=torch.float32)
        offsets = (directions[:, None, None] * steps[:, None]).expand(-1, self.num_levels, -1, -1)
        self.sampling_offsets.bias.copy_(offsets.flatten())

    def forward(self, query: Float[Tensor, "B Q C"], reference: Float[Tensor, "B Q L R"],
                tokens: Float[Tensor, "B N C"], padding: Bool[Tensor, "B N"],
                level_shapes: LevelShapes) -> Float[Tensor, "B Q C"]:
        """Read `tokens` around `reference` (points, R = 2, or cxcywh boxes, R = 4, in [0, 1] of the padded map)."""
        batch, num_queries, width = query.shape
        heads, levels, points = self.num_heads, self.num_levels, self.num_points
        # Zeroed behind the projection: its bias would otherwise speak for the padding.
        value = self.value_projection(tokens).masked_fill(padding[..., None], 0)
        value = value.view(batch, -1, heads, width // heads)
        offsets = self.sampling_offsets(query).view(batch, num_queries, heads, levels, points, 2)
        logits = self.attention_weights(query).view(batch, num_queries, heads, levels * points)
        return self.output_projection(fused_ms_deform_attn(value, level_shapes, reference, offsets, logits))
