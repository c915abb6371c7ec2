"""Which detections a call wants, and in which files: --threshold, --classes, --save and --crop."""

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from cyclopts import Parameter, Token

from deformable_detr.cli.app import WrongCallError
from deformable_detr.cli.inputs import Input
from deformable_detr.cli.outputs import check_folder
from deformable_detr.detect.results import CROPS, PLACES, Format

if TYPE_CHECKING:
    from deformable_detr.detect.results.saving import Saving
    from deformable_detr.weights import ModelInfo

logger = logging.getLogger(__name__)

FOLDER = Path("detections")     # where none is named
Save = Format | Literal["drawings"]
CHOICES = ("drawings", *get_args(Format))


def _thresholds(_: object, tokens: Sequence[Token]) -> float | dict[str, float]:
    """A number, or numbers by the names of classes."""
    text = tokens[0].value
    if "=" not in text:
        return _threshold(text, text)
    named: dict[str, float] = {}
    for part in text.split(","):
        name, equals, number = part.rpartition("=")
        if not equals or not name.strip():
            raise ValueError(f"expected a number, or class=number for some classes as in cat=0.5,dog=0.3, got {text}")
        named[name.strip()] = _threshold(number, part)
    return named


def _threshold(number: str, part: str) -> float:
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ValueError(f"expected a number from 0 to 1, got {part}")
    return value


def _class_names(_: object, tokens: Sequence[Token]) -> tuple[str, ...]:
    return tuple(name for token in tokens for part in token.value.split(",") if (name := part.strip()))


def _formats(_: object, tokens: Sequence[Token]) -> tuple[str, ...]:
    chosen = _class_names(_, tokens)
    unknown = [name for name in chosen if name not in CHOICES]
    if unknown or not chosen:
        raise ValueError(f"expected some of {', '.join(CHOICES)}, got {', '.join(unknown) or 'nothing'}")
    return tuple(dict.fromkeys(chosen))


def _words(converter: Callable[[object, Sequence[Token]], object]) -> Parameter:
    return Parameter(converter=converter, n_tokens=1, accepts_keys=False, negative=())


ThresholdFlag = Annotated[float | dict[str, float] | None, _words(_thresholds)]
ClassesFlag = Annotated[tuple[str, ...] | None, _words(_class_names)]
SaveFlag = Annotated[tuple[Save, ...] | None, _words(_formats)]
CropFlag = Annotated[bool, Parameter(negative=(), show_default=False)]


@dataclass(frozen=True)
class Results:
    """What a call writes, and where."""

    folder: Path | None         # None if it writes nothing
    draws: bool                 # images with their detections drawn in
    formats: tuple[Format, ...]
    crop: bool

    @classmethod
    def asked_for(cls, out: Path | None, save: Sequence[Save] | None, *, crop: bool, as_json: bool) -> "Results":
        """Refuses to write over results: somebody may have corrected them."""
        draws = "drawings" in save if save else out is not None or not as_json
        formats: list[Format] = [each for each in save or () if each != "drawings"]
        if out is None and (draws or formats or crop):
            out = FOLDER
        results = cls(out, draws, tuple(formats), crop)
        if out is not None:
            check_folder("--out", out)
        for flag, path in results.paths.items():
            if os.path.lexists(path):
                raise WrongCallError(f"{flag}: {path} is there already, and results are never overwritten; name "
                                     "another folder by --out")
        return results

    @property
    def paths(self) -> dict[str, Path]:
        """Files and folders of results, by the flags that ask for them."""
        if self.folder is None:
            return {}
        return ({f"--save {each}": self.folder / PLACES[each] for each in self.formats}
                | ({"--crop": self.folder / CROPS} if self.crop else {}))

    @property
    def need_images(self) -> bool:
        """Whether files are made of the pixels."""
        return self.draws or self.crop or bool({"yolo", "voc"} & set(self.formats))

    def saving(self, info: "ModelInfo", inputs: Sequence[Input]) -> "AbstractContextManager[Saving | None]":
        """What writes the results; None if there is nothing but drawings."""
        if self.folder is None or not self.paths:
            return nullcontext()

        from deformable_detr.detect.results.saved import Classes
        from deformable_detr.detect.results.saving import Saving

        files = [entry.path for entry in inputs if entry.path is not None and entry.kind == "image"]
        only_files = all(entry.kind == "image" for entry in inputs)
        return Saving(self.folder, self.formats, Classes.of(info.names, info.category_ids), files,
                      only_files=only_files, with_crops=self.crop)

    def log(self) -> None:
        """Where the results are."""
        if self.paths:
            logger.info("results: %s", ", ".join(map(str, self.paths.values())))
