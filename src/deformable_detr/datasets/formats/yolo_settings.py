"""What a YOLO data set says of itself: names of classes and places of images, in a file or by its folders."""

from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import Any

from deformable_detr.datasets.documents import DocumentError, read_yaml
from deformable_detr.datasets.findings import EntryError, Findings, Place, stop
from deformable_detr.datasets.formats.source import CLASSES, UNNAMED_SPLIT, checked_names
from deformable_detr.datasets.kinds import Kind
from deformable_detr.datasets.layout import SPLIT_NAMES, Fence, read_list
from deformable_detr.images import SUFFIXES
from deformable_detr.text import quoted

DARKNET = "obj.data"     # what CVAT's export "YOLO 1.1" has in place of data.yaml, as Darknet reads it
EXPECTED = f"data.yaml, or {DARKNET}, or images/ and labels/ beside {CLASSES}"


@dataclass(frozen=True)
class YoloSettings:
    """Names by class number, and of each split the places of its images: folders, or lists of files."""

    folder: Path
    file: Path                              # which names the classes
    names: dict[int, str]
    places: dict[str, tuple[str, ...]]      # as they are written
    root: str = ""                          # before each of them, as it is written
    is_darknet: bool = False                # paths begin where Darknet was started; labels lie beside their images

    def find(self, written: str) -> Path | None:
        """What a path means inside the folder, where there is such a thing.

        The path was true on the machine that wrote it: its beginning may be another one's, or lead up.
        """
        parts = _parts(written)
        is_whole = self.is_darknet or written.startswith("/") or PureWindowsPath(written).is_absolute()
        before = [] if is_whole else _parts(self.root)
        for start in range(len(parts) if is_whole else len(before) + 1):
            path = self.folder.joinpath(*(before + parts)[start:])
            try:
                if path.exists():
                    return path
            except OSError:     # a name too long
                return None
        return None


def find_settings(folder: Path, findings: Findings) -> YoloSettings | None:
    """What a YAML file at the top says, or Darknet's, or else the folders' names.

    Raises DataError for one of these files that cannot be read, and where the names of the classes are missing.
    """
    guessed = _guess_places(folder)
    for file in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")], key=lambda file: (file.stem != "data", file)):
        content = _read_settings(file, folder)
        if content is not None and _tells(file, content, guessed):
            return _settings(folder, file, content, guessed, findings)
    if (folder / DARKNET).is_file():
        return _darknet_settings(folder, findings)
    if not guessed:
        return None
    file = folder / CLASSES
    if not file.is_file():
        stop(Kind.NAMES_MISSING, Place(folder), f"expected the names of the classes in data.yaml or {CLASSES}")
    return YoloSettings(folder, file, _listed_names(file, folder), guessed)


def _darknet_settings(folder: Path, findings: Findings) -> YoloSettings:
    """What lines such as `train = data/train.txt` say, where `data` may be this folder."""
    file = folder / DARKNET
    pairs = (line.partition("=") for _, line in read_list(file, folder) if not line.startswith("#"))
    content = {key.strip(): value.strip() for key, _, value in pairs}
    places = {split: (content[key],) for key, split in SPLIT_NAMES.items() if content.get(key)}
    if not places:
        stop(Kind.NO_IMAGES, Place(file), "expected a list of images, as in `train = train.txt`, got none")
    settings = YoloSettings(folder, file, {}, places, is_darknet=True)
    listed = settings.find(content.get("names", ""))
    if listed is None or not listed.is_file():
        got = quoted(content["names"]) if "names" in content else "nothing"
        stop(Kind.NAMES_MISSING, Place(file, entry="names"), f"expected a file with the name of a class on each line, "
             f"as in `names = obj.names`, got {got}")
    names = _listed_names(listed, folder)
    if "classes" in content:
        _check_count(content["classes"], names, Place(file, entry="classes"), findings)
    return replace(settings, names=names)


def _listed_names(file: Path, folder: Path) -> dict[int, str]:
    """The names of classes from a file that has one on each line. Raises DataError."""
    names = dict(enumerate(name for _, name in read_list(file, folder)))
    if not names:
        stop(Kind.NAMES_MISSING, Place(file), "expected the name of a class on each line, got none")
    return checked_names(file, names)


def _read_settings(file: Path, folder: Path) -> dict[str, Any] | None:
    """The keys of the file and what they say. Raises DataError for a data.yaml that is broken."""
    try:
        content = read_yaml(file) if Fence(folder).holds(file) else None
    except EntryError as fault:
        stop(fault.kind, Place(file), fault.message)
    except DocumentError as error:
        if file.stem == "data":
            stop(Kind.ANNOTATION_FILE, Place(file, error.line), str(error))
        return None
    return content if isinstance(content, dict) else None


def _tells(file: Path, content: dict[str, Any], guessed: dict[str, tuple[str, ...]]) -> bool:
    """Whether it is about classes and images: a file of any other name may be a program's own settings."""
    splits = {"train", "val"} & set(content)
    return bool("names" in content or splits) if file.stem == "data" else "names" in content and bool(splits or guessed)


def _settings(folder: Path, file: Path, content: dict[str, Any], guessed: dict[str, tuple[str, ...]],
              findings: Findings) -> YoloSettings:
    names = content.get("names")
    if isinstance(names, list):
        names = {str(number): name for number, name in enumerate(names)}
    if not isinstance(names, dict) or not names:
        stop(Kind.NAMES_MISSING, Place(file, entry="names"), f"expected a list of names, got {quoted(names)}")
    if not all(number.isdecimal() and len(number) < 10 for number in names):
        stop(Kind.ANNOTATION_FILE, Place(file, entry="names"), f"expected class numbers, got {quoted(list(names))}")
    checked = checked_names(file, {int(number): name for number, name in names.items()})
    if "nc" in content:
        _check_count(content["nc"], checked, Place(file, entry="nc"), findings)
    written = {split: _paths(content[key], Place(file, entry=key)) for key, split in SPLIT_NAMES.items()
               if content.get(key)}
    root = content.get("path", "")
    settings = YoloSettings(folder, file, checked, {}, root if isinstance(root, str) else "")
    # Roboflow names a test split that its folder need not have.
    places = {split: paths for split, paths in written.items() if split != "test" or any(map(settings.find, paths))}
    return replace(settings, places=places or guessed)


def _check_count(count: Any, names: dict[int, str], place: Place, findings: Findings) -> None:
    if count != str(len(names)):
        findings.add(Kind.CLASS_COUNT, place, f"expected {len(names)}, the number of names, got {quoted(count)}")


def _guess_places(folder: Path) -> dict[str, tuple[str, ...]]:
    """Splits and their places, which are folders of images that have labels."""
    pairs = [(f"images/{name}", f"labels/{name}", name) for name in _folders(folder / "images")]
    pairs += [(f"{name}/images", f"{name}/labels", name) for name in _folders(folder)]
    places = {SPLIT_NAMES[name.lower()]: (images,) for images, labels, name in pairs
              if name.lower() in SPLIT_NAMES and (folder / images).is_dir() and _has_labels(folder / labels)}
    if places:
        return places
    if (folder / "images").is_dir() and _has_labels(folder / "labels"):
        return {UNNAMED_SPLIT: ("images",)}
    if (folder / CLASSES).is_file() and any(
            path.with_suffix(".txt").is_file() for path in folder.iterdir() if path.suffix.lower() in SUFFIXES):
        return {UNNAMED_SPLIT: (".",)}
    return {}


def _folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _has_labels(folder: Path) -> bool:
    return next(folder.rglob("*.txt"), None) is not None


def _parts(written: str) -> list[str]:
    """The components of a path, of any system, without those that lead up or stay."""
    parts = PureWindowsPath(written).parts
    return [part for part in parts if part not in (".", "..") and not part.endswith(("\\", "/", ":"))]


def _paths(value: Any, place: Place) -> tuple[str, ...]:
    """What a split's key says. Raises DataError."""
    paths = value if isinstance(value, list) else [value]
    if not all(isinstance(path, str) for path in paths):
        stop(Kind.ANNOTATION_FILE, place, f"expected a path or a list of paths, got {quoted(value)}")
    return tuple(paths)
