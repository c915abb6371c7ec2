"""How fast the op is beside its peers, from offsets and logits to output: `python benchmarks/op.py`.

A peer that has no softmax and no offsets gets them from PyTorch, as its users must. Outputs and gradients are compared
before anything is timed. The cases take turns; printed are median and minimum. Peers: `grid_sample` (the op's own
definition in PyTorch, and what the published code falls back to) and, where it is installed, `torch-ms-deform-attn`.
Last comes by which power the time grows with the number of tokens, each of them a query: linear is 1.
"""

import argparse
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from measuring import added_peak, cell, slope, timed
from torch import Tensor

from deformable_detr import fused_ms_deform_attn, ops
from deformable_detr.model.attention import DeformableAttention

SHAPES = ((100, 134), (50, 67), (25, 34), (13, 17))   # of an image of 800 x 1066
LARGE_SHAPES = ((100, 167), (50, 84), (25, 42), (13, 21))   # of 800 x 1333
SMALL_SHAPES = ((32, 32), (16, 16), (8, 8), (4, 4))   # of 256 x 256
SIDES = (28, 40, 56, 80, 112, 144, 174)   # of the finest level: 1 038 to 40 135 tokens
HEADS, CHANNELS, POINTS = 8, 32, 4

Arguments = tuple[Tensor, tuple[tuple[int, int], ...], Tensor, Tensor, Tensor]
Op = Callable[..., Tensor]


def arguments(shapes: tuple[tuple[int, int], ...], num_queries: int | None, device: str) -> Arguments:
    """An encoder's call, in which every token asks, or a decoder's with this many queries anywhere.

    Offsets are those that a model begins with, and as much noise: points lie some pixels around.
    """
    generator = torch.Generator().manual_seed(0)
    tokens = sum(height * width for height, width in shapes)
    centres = [torch.stack(torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width,
                                          indexing="ij")[::-1], dim=-1).flatten(0, 1) for height, width in shapes]
    reference = torch.cat(centres) if num_queries is None else torch.rand(num_queries, 2, generator=generator)
    Q, L = len(reference), len(shapes)
    spread = DeformableAttention(HEADS * CHANNELS, HEADS, L, POINTS).sampling_offsets.bias.detach()
    offsets = spread.view(HEADS, L, POINTS, 2) + torch.randn(1, Q, HEADS, L, POINTS, 2, generator=generator)
    value = torch.randn(1, tokens, HEADS, CHANNELS, generator=generator)
    logits = torch.randn(1, Q, HEADS, L * POINTS, generator=generator)
    reference = reference[None, :, None].expand(-1, -1, L, -1).contiguous()
    return value.to(device), shapes, reference.to(device), offsets.to(device), logits.to(device)


def with_grid_sample(*inputs: object) -> Tensor:
    with ops.use_backend("reference"):
        return fused_ms_deform_attn(*inputs)   # type: ignore[arg-type]


def peers() -> dict[str, Op]:
    """Ours first."""
    found: dict[str, Op] = {"deformable_detr": fused_ms_deform_attn, "grid_sample": with_grid_sample}
    try:
        import torch_ms_deform_attn
    except ImportError:
        return found

    def with_torch_ms_deform_attn(value: Tensor, shapes: tuple[tuple[int, int], ...], reference: Tensor,
                                  offsets: Tensor, logits: Tensor) -> Tensor:
        sizes = torch.tensor(shapes, device=value.device)
        starts = sizes.prod(1).cumsum(0) - sizes.prod(1)
        locations = reference[:, :, None, :, None] + offsets / sizes.flip(1)[:, None]
        weights = logits.softmax(-1).view(offsets.shape[:-1])
        return torch_ms_deform_attn.ms_deform_attn(value, sizes, starts, locations, weights)

    return {**found, "torch-ms-deform-attn": with_torch_ms_deform_attn}


def forward(op: Op, inputs: Arguments) -> list[Tensor]:
    with torch.no_grad():
        return [op(*inputs)]


def forward_and_backward(op: Op, inputs: Arguments) -> list[Tensor]:
    value, shapes, reference, offsets, logits = inputs
    leaves = [tensor.detach().requires_grad_() for tensor in (value, offsets, logits)]
    output = op(leaves[0], shapes, reference, *leaves[1:])
    return [output, *torch.autograd.grad(output, leaves, torch.ones_like(output))]


def check_same(results: dict[str, list[Tensor]]) -> None:
    """Locations are rounded differently, and a gradient jumps at a pixel centre: compared are the means of errors."""
    ours = results["deformable_detr"]
    for name, others in results.items():
        for one, other in zip(ours, others, strict=True):
            error = ((one - other).abs().mean() / other.abs().mean()).item()
            if not error < 1e-3:
                raise SystemExit(f"{name}: differs by {error:.2g}")


def table(title: str, inputs: Arguments, repeats: int, device: str) -> None:
    print(f"\n{title}, ms: median (minimum); and how many times ours\n\n| | forward | | forward + backward | |")
    print("|---|---|---|---|---|")
    columns = []
    for run in (forward, forward_and_backward):
        cases = {name: (lambda op=op, run=run: run(op, inputs)) for name, op in peers().items()}
        check_same({name: case() for name, case in cases.items()})
        columns.append(timed(cases, repeats, device))
    for name in columns[0]:
        cells = [cell(column[name], column["deformable_detr"]) for column in columns]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def peak(name: str, run: str) -> None:
    """Print what an encoder's call adds to the peak of this process, in MiB."""
    inputs = arguments(SHAPES, None, "cpu")
    function = {"forward": forward, "forward_and_backward": forward_and_backward}[run]
    function(peers()[name], arguments(((2, 3),) * 4, None, "cpu"))   # what is compiled and imported does not count
    print(added_peak(lambda: function(peers()[name], inputs)))


def memory_table() -> None:
    print("\nAn encoder's call, 17 821 tokens: MiB above its arguments, at the peak\n")
    print("| | forward | forward + backward |\n|---|---|---|")
    for name in peers():
        cells = [float(subprocess.run([sys.executable, __file__, "--peak", name, run], check=True, capture_output=True,
                                      text=True).stdout) for run in ("forward", "forward_and_backward")]
        print(f"| {name} | {cells[0]:.0f} | {cells[1]:.0f} |", flush=True)


def times_by_tokens(repeats: int, device: str) -> dict[str, list[tuple[float, float]]]:
    """For each peer, the number of tokens and the median of its times, in ms, for squares of several sizes."""
    points: dict[str, list[tuple[float, float]]] = {name: [] for name in peers()}
    for side in SIDES:
        shapes = tuple((max(1, side >> level), max(1, side >> level)) for level in range(4))
        inputs = arguments(shapes, None, device)
        cases = {name: (lambda op=op, inputs=inputs: forward(op, inputs)) for name, op in peers().items()}
        check_same({name: case() for name, case in cases.items()})
        for name, times in timed(cases, repeats, device, in_sequence=True).items():
            points[name].append((inputs[0].shape[1], statistics.median(times)))
    return points


def draw(path: Path, points: dict[str, list[tuple[float, float]]]) -> None:
    """Time over the number of tokens, as an image."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, line in points.items():
        axes.plot(*zip(*line, strict=True), marker=".", label=name)
    axes.set(xscale="log", yscale="log", xlabel="tokens, each a query", ylabel="forward, ms (median)")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--curve", type=Path, help="draw time over tokens into this image")
    parser.add_argument("--peak", nargs=2, metavar=("NAME", "RUN"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        peak(*options.peak)
        return
    device = options.device
    name = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"{platform.machine()}, {name}, torch {torch.__version__}, Python {platform.python_version()}, float32")
    for title, shapes, queries in (("An encoder's call, 17 821 tokens", SHAPES, None),
                                   ("An encoder's call, 22 223 tokens (1333 pixels)", LARGE_SHAPES, None),
                                   ("An encoder's call, 1 360 tokens (256 pixels)", SMALL_SHAPES, None),
                                   ("A decoder's call, 300 queries on 17 821 tokens", SHAPES, 300)):
        table(title, arguments(shapes, queries, device), options.repeats, device)
    if device == "cpu":
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        table("An encoder's call, 17 821 tokens, one thread", arguments(SHAPES, None, device), options.repeats, device)
        torch.set_num_threads(threads)
        memory_table()
    points = times_by_tokens(options.repeats, device)
    for name, line in points.items():
        print(f"\n{name}: time grows with tokens to the power of {slope(line):.2f}, from {line[0][0]} to {line[-1][0]}")
    if options.curve:
        draw(options.curve, points)


if __name__ == "__main__":
    main()
