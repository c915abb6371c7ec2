"""A trace as a page in a single file: each stage can be unfolded, and shows the source around its line."""

import linecache
from collections.abc import Sequence
from dataclasses import dataclass

from deformable_detr.explain.recorder import Stage
from deformable_detr.web.pages import render_page

AROUND = 4      # lines of source before and after a statement


@dataclass(frozen=True)
class Group:
    """Stages of one file that follow each other."""

    file: str
    part: str
    stages: list[Stage]

    @property
    def milliseconds(self) -> float:
        """Of all stages together."""
        return sum(stage.milliseconds or 0 for stage in self.stages)


def trace_page(title: str, images: Sequence[str], stages: Sequence[Stage], legend: str) -> bytes:
    """The page as UTF-8; `title` says whose stages these are."""
    return render_page("explain/trace.html.jinja", title=title, images=images, groups=grouped(stages), legend=legend,
                       total=sum(stage.milliseconds or 0 for stage in stages), source_of=source_of)


def grouped(stages: Sequence[Stage]) -> list[Group]:
    groups: list[Group] = []
    for stage in stages:
        if not groups or (groups[-1].file, groups[-1].part) != (stage.file, stage.part):
            groups.append(Group(stage.file, stage.part, []))
        groups[-1].stages.append(stage)
    return groups


def source_of(stage: Stage) -> list[tuple[int, str, bool]]:
    """Lines of source around the statement: number, text, and whether it is that line."""
    lines = linecache.getlines(str(stage.path))
    first = max(stage.line - AROUND, 1)
    return [(number, text.rstrip(), number == stage.line)
            for number, text in enumerate(lines[first - 1:stage.line + AROUND], start=first)]
