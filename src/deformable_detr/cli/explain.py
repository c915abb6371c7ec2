"""`ddetr explain`: where a detector looks in an image, as a page; why it did not find something, in a few lines."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from deformable_detr.cli.app import (
    USUAL,
    MessageFlags,
    OptionalPath,
    OptionalShare,
    WrongCallError,
    app,
    find_weights_file,
    output_console,
    print_line,
    report_error,
    wrong_call_for,
)
from deformable_detr.cli.outputs import check_page
from deformable_detr.text import printable
from deformable_detr.weights.sources import DEMO

if TYPE_CHECKING:
    from deformable_detr.explain import Explanation

PAGE = Path("explanation.html")


@app.command
def explain(image: str, /, *, weights: str = DEMO, out: OptionalPath = None, threshold: OptionalShare = None,
            why: str | None = None, device: str = "auto", messages: MessageFlags = USUAL) -> int:
    """Show where the model looks in an image, as a page in a single file.

    Parameters
    ----------
    image
        An image file.
    weights
        "demo" for the packaged ones, a name that `ddetr weights` lists, "hf:owner/name", a file or a folder.
    out
        The page, a name that ends in .html; by default explanation.html, with --why none. Only a page
        of an earlier call is replaced.
    threshold
        The lowest score of a detection, from 0 to 1; by default the one kept with the weights, usually 0.5.
    why
        X,Y in pixels of the image: print the queries that came nearest to this place, with their scores.
    device
        "auto", "cpu", "cuda", "cuda:1", "mps", ...
    """
    messages.start()
    place = None if why is None else _place(why)
    page = PAGE if out is None and place is None else out
    if page is not None:
        check_page("--out", page)
    weights_file = find_weights_file(weights)

    from deformable_detr.detect.detector import Detector
    from deformable_detr.images import ImageError

    with wrong_call_for(ValueError):
        detector = Detector(weights_file, device)
    try:
        explanation = detector.explain(image, threshold)
    except (ValueError, MemoryError) as error:
        report_error(str(error) if isinstance(error, ImageError) else f"{image}: {error}")
        return 1
    if place is not None:
        _print_nearest(explanation, image, *place)
    if page is not None:
        explanation.page(page)
        found = ", ".join(f"{number} {name}" for name, number in Counter(explanation.detections.names).most_common())
        print_line(printable(f"{image}: {found or 'nothing found'} -> {page}"))
    return 0


def _place(text: str) -> tuple[float, float]:
    try:
        x, y = map(float, text.split(","))
    except ValueError:
        raise WrongCallError(f"--why: expected X,Y in pixels, such as 120,80, got {text!r:.100}") from None
    return x, y


def _print_nearest(explanation: "Explanation", image: str, x: float, y: float) -> None:
    """A line about the place, and a table of the queries nearest to it."""
    from rich.table import Table
    from rich.text import Text

    width, height = explanation.image.size
    if not (0 <= x < width and 0 <= y < height):
        raise WrongCallError(f"--why: expected a place in the image of {width} x {height} pixels, got {x:g},{y:g}")
    there = [f"{name} {score:.2f}" for name, score, (x0, y0, x1, y1) in zip(
        explanation.detections.names, explanation.detections.scores, explanation.detections.boxes, strict=True)
        if x0 <= x <= x1 and y0 <= y <= y1]
    console = output_console()
    console.print(Text(printable(f"{image} at {x:g},{y:g}: {', '.join(there) or 'nothing found there'}; the queries "
                                 "that came nearest:")))
    table = Table("query", "class", "score", "after each layer", "pixels away", "box", "what became of it", box=None)
    for each in explanation.nearest(x, y):
        table.add_row(str(each.query), Text(printable(each.name)), f"{each.score:.3f}",
                      " ".join(f"{score:.3f}" for score in each.scores), f"{each.distance:.0f}",
                      " ".join(f"{edge:.0f}" for edge in each.box), each.verdict)
    console.print(table)
