"""The settings of a YOLO data set: names of classes and places of images, in a file or by the folders' names."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from pathlib import Path, PureWindowsPath
from typing import Any

from deformable_detr.datasets.findings import EntryError, Findings, Place, stop
from deformable_detr.datasets.formats.source import CLASSES_FILE, check_class_names
from deformable_detr.datasets.formats.yolo_lines import read_key_points
from deformable_detr.datasets.kinds import Fault
from deformable_detr.datasets.layout import Fence, FileNames, read_list
from deformable_detr.datasets.splits import SPLIT_NAMES, UNNAMED_SPLIT, named_splits, split_folders, splits_in
from deformable_detr.documents import DocumentError, read_yaml
from deformable_detr.images import SUFFIXES
from deformable_detr.text import quoted

BESIDE = "_darknet.labels"      # names of classes, among the images and labels of a split: Roboflow's export "Darknet"
DARKNET = "obj.data"     # Darknet's settings, which CVAT's export "YOLO 1.1" has in place of data.yaml

Places = dict[str, tuple[str, ...]]     # of each split, as they are written: folders, or lists of files


@dataclass(frozen=True)
class YoloSettings:
    """Names by class number, and of each split the places of its images."""

    folder: Path
    file: Path                  # that names the classes
    names: dict[int, str]
    places: Places
    root: str = ""              # before each of them, as it is written
    key_points: tuple[int, int] | None = None   # how many an object has, and the numbers of each
    task: str = ""
    is_darknet: bool = False    # labels are beside their images; paths begin where Darknet was started

    def find(self, written: Sequence[str]) -> list[Path | None]:
        """What each path means inside the folder, if that exists.

        Paths were true on the machine that wrote them, whose folders they may begin with. What is cut off is the same
        for all of them, since otherwise two splits could become one folder.
        """
        found: list[Path | None] = [None] * len(written)
        for whole in (False, True):
            chosen = [index for index, path in enumerate(written) if self._is_whole(path) == whole]
            before = [] if whole else _parts(self.root)
            paths = [[*before, *_parts(written[index])] for index in chosen]
            common = len(list(takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))))
            shortest = min(map(len, paths), default=0) - 1      # the last part of a path is never cut off
            for start in range((min(common, shortest) if whole else len(before)) + 1):
                places = [self._place(path[start:]) for path in paths]
                if any(places):
                    for index, place in zip(chosen, places, strict=True):
                        found[index] = place
                    break
        return found

    @cached_property
    def found(self) -> dict[str, Path]:
        """What there is of `places`."""
        every = [path for paths in self.places.values() for path in paths]
        return {written: path for written, path in zip(every, self.find(every), strict=True) if path}

    def check_found(self, findings: Findings) -> None:
        """Report the paths that only their ends are true of. Raises DataError where two mean one folder."""
        meant: dict[Path, str] = {}
        for split, paths in self.places.items():
            for written in paths:
                found, place = self.found.get(written), Place(self.file, entry=split)
                if found is None:
                    continue
                if meant.setdefault(found, written) != written and _parts(meant[found]) != _parts(written):
                    stop(Fault.NO_IMAGES, place, f"expected two folders for {quoted(written)} and "
                         f"{quoted(meant[found])}, got {found} for both")
                literal = self.folder / self.root / written
                if (self.root or self._is_whole(written)) and literal.resolve() != found.resolve():
                    findings.add(Fault.PATH_ELSEWHERE, place, f"{quoted(str(literal))} is not in {self.folder}; "
                                 f"{found} is read")

    def _is_whole(self, written: str) -> bool:
        return (self.is_darknet and written != ".") or written.startswith("/") or PureWindowsPath(written).is_absolute()

    def _place(self, parts: Sequence[str]) -> Path | None:
        try:
            path = self.folder.joinpath(*parts)
            if path.exists():
                return path
        except (OSError, ValueError):     # a name too long, a null byte
            return None
        found = self._names.find("/".join(parts))
        return None if found is None else self.folder / found

    @cached_property
    def _names(self) -> FileNames:
        return FileNames(self.folder)


def find_settings(folder: Path, findings: Findings) -> YoloSettings | None:
    """What a YAML file in the folder contains, or Darknet's file, or else the names of the folders.

    Raises DataError for one of these files that cannot be read, and where the names of the classes are missing.
    """
    aside = Findings()
    labelled = _labelled_folders(folder)
    guessed = _guess_places(folder, labelled, aside)
    for file in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")], key=lambda file: (file.stem != "data", file)):
        content = _read_settings(file, folder)
        if content is not None and _is_data_set(file, content, guessed):
            settings = _yaml_settings(folder, file, content, guessed, findings)
            _report_unnamed(settings, [*labelled.values()] or [folder / place for place, in guessed.values()], findings)
            return settings
    if (folder / DARKNET).is_file():
        return _darknet_settings(folder, findings)
    if files := sorted([*folder.glob(BESIDE), *folder.glob(f"*/{BESIDE}")]):
        return _roboflow_settings(folder, files, findings)
    if not guessed:
        return None
    findings.merge(aside)
    file = folder / CLASSES_FILE
    if not file.is_file():
        stop(Fault.NAMES_MISSING, Place(folder),
             f"expected the names of the classes in data.yaml or {CLASSES_FILE}")
    return YoloSettings(folder, file, _listed_names(file, folder), guessed)


def _darknet_settings(folder: Path, findings: Findings) -> YoloSettings:
    """The settings from lines such as `train = data/train.txt`, where `data` may be this folder."""
    file = folder / DARKNET
    pairs = (line.partition("=") for _, line in read_list(file, folder) if not line.startswith("#"))
    content = {key.strip(): value.strip() for key, _, value in pairs}
    keys = {key: file for key in content if content[key]}
    places: Places = {split: (content[key],) for split, key in named_splits(keys, findings).items()}
    if not places:
        stop(Fault.NO_IMAGES, Place(file), "expected a list of images, as in `train = train.txt`, got none")
    settings = YoloSettings(folder, file, {}, places, is_darknet=True)
    listed, = settings.find([content.get("names", "")])
    if listed is None or not listed.is_file():
        got = quoted(content["names"]) if "names" in content else "nothing"
        stop(Fault.NAMES_MISSING, Place(file, entry="names"), "expected a file with the name of a class on each "
             f"line, as in `names = obj.names`, got {got}")
    names = _listed_names(listed, folder)
    _check_count(content, "classes", names, file, findings)
    return replace(settings, names=names)


def _roboflow_settings(folder: Path, files: list[Path], findings: Findings) -> YoloSettings:
    """The settings of folders that each hold images, labels and the names of the classes."""
    names = [_listed_names(file, folder) for file in files]
    for file, found in zip(files, names, strict=True):
        if found != names[0]:
            stop(Fault.ANNOTATION_FILE, Place(file), f"expected the names of {files[0]}, got {quoted(found)}")
    beside = {file.parent.name: file.parent for file in files if file.parent != folder}
    places: Places = {split: (beside[name].relative_to(folder).as_posix(),)
                      for split, name in split_folders(beside, findings).items()}
    return YoloSettings(folder, files[0], names[0], places or {UNNAMED_SPLIT: (".",)}, is_darknet=True)


def _listed_names(file: Path, folder: Path) -> dict[int, str]:
    """The names of classes from a file with one per line. Raises DataError."""
    names = dict(enumerate(name for _, name in read_list(file, folder)))
    if not names:
        stop(Fault.NAMES_MISSING, Place(file), "expected the name of a class on each line, got none")
    return check_class_names(file, names)


def _read_settings(file: Path, folder: Path) -> dict[str, Any] | None:
    """The content of a YAML file, if it is a mapping. Raises DataError for a broken data.yaml."""
    fence = Fence(folder)
    try:
        fence.check(file)
        content = read_yaml(file) if fence.holds(file) else None
    except EntryError as fault:
        stop(fault.kind, Place(file), fault.message)
    except DocumentError as error:
        if file.stem == "data":
            stop(Fault.ANNOTATION_FILE, Place(file, error.line), str(error))
        return None
    return content if isinstance(content, dict) else None


def _is_data_set(file: Path, content: dict[str, Any], guessed: Places) -> bool:
    """Whether it describes classes and images: a file of any other name may be a program's own settings."""
    has_splits = any({"train", "val"} & splits_in(key) for key in content)
    return ("names" in content and bool(has_splits or guessed)) or (file.stem == "data" and has_splits)


def _yaml_settings(folder: Path, file: Path, content: dict[str, Any], guessed: Places,
                   findings: Findings) -> YoloSettings:
    names = content.get("names")
    if isinstance(names, list):
        names = {str(number): name for number, name in enumerate(names)}
    if not isinstance(names, dict) or not names:
        stop(Fault.NAMES_MISSING, Place(file, entry="names"), f"expected a list of names, got {quoted(names)}")
    if not all(number.isdecimal() and len(number) < 10 for number in names):
        stop(Fault.ANNOTATION_FILE, Place(file, entry="names"),
             f"expected class numbers, got {quoted(list(names))}")
    checked = check_class_names(file, {int(number): name for number, name in names.items()})
    _check_count(content, "nc", checked, file, findings)
    # Keys such as train_ratio are a program's own.
    keys = {key: file for key, value in content.items()
            if value and (key.lower() in SPLIT_NAMES or (isinstance(value, str) and (folder / value).exists()))}
    written = {split: _paths(content[key], Place(file, entry=key))
               for split, key in named_splits(keys, findings).items()}
    root = content.get("path", "")
    is_path = isinstance(root, str) and "\0" not in root
    settings = YoloSettings(folder, file, checked, written or guessed, root if is_path else "",
                            read_key_points(file, content.get("kpt_shape")), str(content.get("task", "")))
    settings.check_found(findings)
    # Roboflow names a test split whether or not its folder exists.
    if written and not settings.found.keys() & set(written.get("test", ())):
        written.pop("test", None)
    return replace(settings, places=written or guessed)


def _report_unnamed(settings: YoloSettings, labelled: Iterable[Path], findings: Findings) -> None:
    """Report the folders of images and labels that belong to no split; what lists of images name is not looked at."""
    found = list(settings.found.values())
    for folder in labelled:
        if not any(folder.is_relative_to(path) or path.is_relative_to(folder) or path.is_file() for path in found):
            findings.add(Fault.OTHER_ANNOTATIONS, Place(folder), f"{settings.file.name} names it for no split")


def _check_count(content: dict[str, Any], key: str, names: dict[int, str], file: Path, findings: Findings) -> None:
    if key in content and content[key] != str(len(names)):
        findings.add(Fault.CLASS_COUNT, Place(file, entry=key),
                     f"expected {len(names)}, the number of names, got {quoted(content[key])}")


def _labelled_folders(folder: Path) -> dict[str, Path]:
    """Folders of images that have labels, by the names that may be those of splits."""
    pairs = [(f"images/{name}", f"labels/{name}", name) for name in _folders(folder / "images")]
    pairs += [(f"{name}/images", f"{name}/labels", name) for name in _folders(folder)]
    return {name: folder / images for images, labels, name in reversed(pairs)
            if (folder / images).is_dir() and _has_labels(folder / labels)}


def _guess_places(folder: Path, labelled: dict[str, Path], findings: Findings) -> Places:
    """The splits by the names of such folders."""
    found = split_folders(labelled, findings)
    if found:
        return {split: (labelled[name].relative_to(folder).as_posix(),) for split, name in found.items()}
    if (folder / "images").is_dir() and _has_labels(folder / "labels"):
        return {UNNAMED_SPLIT: ("images",)}
    if (folder / CLASSES_FILE).is_file() and any(
            path.with_suffix(".txt").is_file() for path in folder.iterdir() if path.suffix.lower() in SUFFIXES):
        return {UNNAMED_SPLIT: (".",)}
    return {}


def _folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _has_labels(folder: Path) -> bool:
    return next(folder.rglob("*.txt"), None) is not None


def _parts(written: str) -> list[str]:
    """The components of a path of any system, without those that lead up or stay."""
    parts = PureWindowsPath(written).parts
    return [part for part in parts if part not in (".", "..") and not part.endswith(("\\", "/", ":"))]


def _paths(value: Any, place: Place) -> tuple[str, ...]:
    """The paths of a split. Raises DataError."""
    paths = value if isinstance(value, list) else [value]
    if not all(isinstance(path, str) for path in paths):
        stop(Fault.ANNOTATION_FILE, place, f"expected a path or a list of paths, got {quoted(value)}")
    return tuple(paths)
