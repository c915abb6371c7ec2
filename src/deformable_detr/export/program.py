"""A detector as an exported program: PyTorch's own graph, with free or fixed batch and size."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental.sym_node import SymNode

from deformable_detr.export.graph import INPUTS, DetectorGraph
from deformable_detr.export.metadata import Form
from deformable_detr.export.same_padding import with_short_sizes
from deformable_detr.model.folding import fold_batch_norm
from deformable_detr.model.half import HALF, compute_in_half
from deformable_detr.model.network import Network
from deformable_detr.ops import use_backend
from deformable_detr.preprocessing import Preprocessing

BACKENDS = {"gridsample": "reference", "gather": "gather"}
EXAMPLE_BATCH = 2               # one would be taken for a constant
EXAMPLE_SIZE = (288, 352)       # different, since equal sides would be taken for one; several pixels on each level


def detector_graph(model: Network, preprocessing: Preprocessing, form: Form) -> DetectorGraph:
    """What is exported: a copy of the model on the CPU in float32, its batch norms folded into the convolutions."""
    model = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
    model.backbone.net = fold_batch_norm(model.backbone.net).to(memory_format=torch.contiguous_format)
    with_short_sizes(model.backbone.net)
    return DetectorGraph(model, preprocessing, form.top_k, form.raw).eval()


def lowered(graph: DetectorGraph, form: Form) -> DetectorGraph:
    """The graph with its heavy products in half precision, if the form says so: the same as in `Detector`."""
    if form.precision not in HALF:
        return graph
    graph = copy.deepcopy(graph)
    compute_in_half(graph.model, HALF[form.precision])
    for module in graph.model.modules():
        if isinstance(module, nn.LayerNorm | nn.GroupNorm):
            # PyTorch takes half precision beside weights in float32 there, other runtimes do not.
            module.register_forward_pre_hook(lambda _, inputs: tuple(each.float() for each in inputs))
    return graph


@torch.no_grad()
def export_program(graph: DetectorGraph, form: Form) -> ExportedProgram:
    """The graph with the deformable attention written as `form.op` says."""
    height, width = form.size or EXAMPLE_SIZE
    batch = form.batch or EXAMPLE_BATCH
    images = torch.zeros(batch, 3, height, width, dtype=torch.float32 if form.raw else torch.uint8)
    sizes = torch.tensor([[height, width]]).expand(batch, 2).contiguous()
    with use_backend(BACKENDS[form.op]), short_work_with_shapes():
        return torch.export.export(graph, (images, sizes), dynamic_shapes=_free_dimensions(form))


def _free_dimensions(form: Form) -> dict[str, dict[int, Any]]:
    """PyTorch finds out by itself from which size on they are free: the coarsest level has more than one pixel."""
    batch = {} if form.batch else {0: Dim.DYNAMIC}
    sides = {} if form.size else {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    return dict(zip(INPUTS, ({**batch, **sides}, batch), strict=True))


@contextmanager
def short_work_with_shapes() -> Iterator[None]:
    """Without simplifying each quotient of shapes, and with each formula turned into text once.

    Where a dimension is the sum over the levels, SymPy needs from ten minutes to hours for the one, and much of the
    rest of an export for the other. Neither changes a number.
    """
    written = cache(str)
    with patch("sympy.simplify", lambda expression, **_: expression), \
            patch.object(SymNode, "str", lambda node: written(node.expr)):
        yield
