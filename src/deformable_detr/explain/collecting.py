"""What every attention layer of a model was given, kept by hooks while the model runs."""

from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from threading import get_ident
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deformable_detr.explain.recorder import Recorder
from deformable_detr.model.network import Network


@dataclass(frozen=True)
class Call:
    """One use of an attention layer: what it samples or compares can be computed again from its inputs."""

    attention: nn.Module
    inputs: dict[str, Any]              # by the names of its `forward`
    autocast: torch.dtype | None        # in which it computed its products; None: in that of its weights

    def computing(self) -> AbstractContextManager[object]:
        """Where its products are what they were."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(next(self.attention.parameters()).device.type, self.autocast)


@dataclass
class Collector:
    """Keeps the calls of one run of `model` inside a `with` block; hooks only look on, so no result changes.

    Runs of other threads meanwhile are not kept. Lists have an entry for each layer.
    """

    model: Network
    encoder: list[Call] = field(default_factory=list)
    self_attention: list[Call] = field(default_factory=list)        # of the decoder, like the rest
    cross_attention: list[Call] = field(default_factory=list)
    references: list[Float[Tensor, "B Q _"]] = field(default_factory=list)     # in [0, 1] of the unpadded image

    def __enter__(self) -> "Collector":
        self._record = ExitStack()
        record = self._record.enter_context(Recorder())
        encoder: Any = self.model.encoder
        decoder: Any = self.model.decoder
        for layer in encoder.layers:
            self._keep(record, layer.attention, self.encoder)
        for layer in decoder.layers:
            self._keep(record, layer.self_attention, self.self_attention)
            self._keep(record, layer.cross_attention, self.cross_attention)
        thread = get_ident()
        record.before(decoder.places, lambda inputs: (
            self.references.append(inputs["reference"]) if get_ident() == thread else None))
        return self

    def __exit__(self, *_: object) -> None:
        self._record.close()

    def _keep(self, record: Recorder, attention: nn.Module, calls: list[Call]) -> None:
        thread, device = get_ident(), next(attention.parameters()).device.type

        def keep(inputs: dict[str, Any]) -> None:
            if get_ident() == thread:
                enabled = torch.is_autocast_enabled(device)
                calls.append(Call(attention, inputs, torch.get_autocast_dtype(device) if enabled else None))

        record.before(attention, keep)
