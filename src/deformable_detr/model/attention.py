"""Multi-scale deformable attention as a layer (paper, section 4.1, equation 3)."""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deformable_detr.ops import fused_ms_deform_attn
from deformable_detr.structures import Place, Pyramid


class DeformableAttention(nn.Module):
    """Each query samples M heads x L levels x P points of the tokens, at learned offsets from its reference."""

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
        """As published: each head points in its own direction, each point one step further, all with equal weight."""
        for layer in (self.value_projection, self.output_projection):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        for layer in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        if self.sampling_offsets.bias.is_meta:      # without memory: only its shape is wanted
            return
        angles = torch.arange(self.num_heads, dtype=torch.float32) * (2 * math.pi / self.num_heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
        directions = directions / directions.abs().amax(dim=-1, keepdim=True)
        steps = torch.arange(1, self.num_points + 1, dtype=torch.float32)
        offsets = (directions[:, None, None] * steps[:, None]).expand(-1, self.num_levels, -1, -1)
        self.sampling_offsets.bias.copy_(offsets.flatten())

    def forward(self, content: Float[Tensor, "B Q C"], place: Place, memory: Pyramid) -> Float[Tensor, "B Q C"]:
        """Sample the memory around the place's reference: points (R = 2) or cxcywh boxes (R = 4)."""
        offsets, logits = self.sampling(content + place.position)
        sampled = fused_ms_deform_attn(self.values(memory), memory.level_shapes, place.reference, offsets, logits)
        return self.output_projection(sampled)

    def values(self, memory: Pyramid) -> Float[Tensor, "B N M D"]:
        """What is sampled: the projected tokens, zero at padding."""
        value = self.value_projection(memory.tokens)
        if memory.is_padded:    # masked after the projection: its bias would fill the padding
            value = value.masked_fill(memory.padding[..., None], 0)
        return value.unflatten(-1, (self.num_heads, -1))

    def sampling(self, query: Float[Tensor, "B Q C"]) -> tuple[Float[Tensor, "B Q M LP2"], Float[Tensor, "B Q M LP"]]:
        """Where each query samples, as offsets from its reference, and the logits of the samples' weights."""
        # Levels, points and x, y stay in one axis: some runtimes take no tensor above rank 5.
        return (self.sampling_offsets(query).unflatten(-1, (self.num_heads, -1)),
                self.attention_weights(query).unflatten(-1, (self.num_heads, -1)))

    def slow_parameters(self) -> Iterator[nn.Parameter]:
        """Where to sample is learned slowly: a tenth of the learning rate as published (appendix A.4)."""
        return self.sampling_offsets.parameters()
