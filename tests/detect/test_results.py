"""Each format of results, read by those who take it: the same classes and boxes come back."""

import csv
import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import yaml
from PIL import Image

from deformable_detr.datasets.findings import Findings
from deformable_detr.datasets.folder import DataFolder
from deformable_detr.detect.results import PLACES, Format, whole_text
from deformable_detr.detect.results.csv_table import harmless
from deformable_detr.detect.results.naming import Names
from deformable_detr.detect.results.saved import Classes
from deformable_detr.detect.results.saving import Saving
from deformable_detr.detections import Detections
from deformable_detr.images import EXIF_ORIENTATION, read_image

CLASSES = Classes.of(["cat", "dog", "猫 & <co>"], [1, 17, 90])
EVERY: tuple[Format, ...] = tuple(PLACES)
TOLERANCE = 2e-3        # pixels


def found_in(width: int, height: int, seed: int, number: int = 4) -> Detections:
    random = np.random.default_rng(seed)
    first = random.uniform(0, 0.5, (number, 2))
    shares = np.concatenate([first, first + random.uniform(0.1, 0.5, (number, 2))], axis=1)
    boxes = shares * [width, height, width, height]
    labels = random.integers(0, 3, number)
    return Detections(boxes.astype(np.float32), np.sort(random.random(number).astype(np.float32))[::-1].copy(), labels,
                      [CLASSES.names[label] for label in labels], (height, width))


@pytest.fixture
def images(tmp_path: Path) -> dict[Path, Detections]:
    """Three images: one is stored turned, two have the same name, and in one is nothing."""
    folder = tmp_path / "pictures"
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    paths = [folder / name for name in ("a.jpg", "b.png", "deep/a.png")]
    for path in paths:
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.new("RGB", (40, 30), "grey").save(path, exif=exif if path.name == "a.jpg" else None)
    return {paths[0]: found_in(30, 40, 0), paths[1]: found_in(40, 30, 1, 0), paths[2]: found_in(40, 30, 2)}


def save(out: Path, images: dict[Path, Detections], formats: Sequence[Format] = EVERY) -> Path:
    with Saving(out, formats, CLASSES, list(images), only_files=True) as saving:
        for path, found in images.items():
            saving.add(str(path), path, found)
    return out


@pytest.fixture
def out(tmp_path: Path, images: dict[Path, Detections]) -> Path:
    return save(tmp_path / "out", images)


def objects_read(folder: Path) -> dict[str, list[tuple[str, list[float]]]]:
    """Names and corners of the objects of each image, by our own reader, which finds no fault."""
    annotations = DataFolder(folder).read("train", findings := Findings())
    data = DataFolder(folder).read("val", findings) if "val" in DataFolder(folder).splits else None
    assert not list(findings.groups())
    objects: dict[str, list[tuple[str, list[float]]]] = {}
    for part in filter(None, [annotations, data]):
        for index, image in enumerate(part.images):
            rows = np.flatnonzero(part.image_index == index)
            corners = part.boxes[rows].copy()
            corners[:, 2:] += corners[:, :2]
            objects[Path(image.file_name).name] = [
                (part.names[label], box) for label, box in zip(part.labels[rows], corners.tolist(), strict=True)]
    return objects


def assert_objects(objects: list[tuple[str, list[float]]], found: Detections) -> None:
    assert [name for name, _ in objects] == found.names
    np.testing.assert_allclose(np.array([box for _, box in objects]).reshape(-1, 4), found.boxes, atol=TOLERANCE)


def test_coco_is_read_by_pycocotools(out: Path, images: dict[Path, Detections]) -> None:
    from pycocotools.coco import COCO

    truth = COCO(str(out / "coco" / "images.json"))
    results = truth.loadRes(str(out / "coco" / "results.json"))
    assert {category["id"]: category["name"] for category in truth.dataset["categories"]} == dict(
        zip((1, 17, 90), CLASSES.names, strict=True))
    assert [image["file_name"] for image in truth.dataset["images"]] == ["a.jpg", "b.png", "deep/a.png"]
    for number, found in enumerate(images.values(), start=1):
        rows = results.loadAnns(results.getAnnIds(imgIds=[number]))
        assert [row["category_id"] for row in rows] == [CLASSES.category_ids[label] for label in found.labels]
        np.testing.assert_allclose([row["score"] for row in rows], found.scores, atol=1e-6)
        corners = np.array([row["bbox"] for row in rows]).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        np.testing.assert_allclose(corners, found.boxes, atol=TOLERANCE)
        height, width = found.image_size
        assert truth.imgs[number]["height"] == height
        assert truth.imgs[number]["width"] == width


def test_images_whose_names_are_numbers_keep_them(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number:012}.jpg" for number in (139, 285)]
    for only_files, ids in ((True, [139, 285]), (False, [1, 2])):
        with Saving(tmp_path / str(only_files), ["coco"], CLASSES, paths, only_files=only_files) as saving:
            for path in paths:
                saving.add(str(path), path, found_in(40, 30, 0))
        content = json.loads((tmp_path / str(only_files) / "coco" / "images.json").read_text())
        assert [image["id"] for image in content["images"]] == ids


@pytest.mark.parametrize("layout", ["yolo", "voc"])
def test_data_sets_are_read_by_our_own_readers(out: Path, images: dict[Path, Detections], layout: str) -> None:
    objects = objects_read(out / layout)
    names = {"a.jpg": "a.jpg", "b.png": "b.png", "a-2.png": "deep/a.png"}     # a label file belongs to one image
    assert set(objects) == set(names)
    for name, path in names.items():
        found = next(found for source, found in images.items() if source.as_posix().endswith(f"pictures/{path}"))
        assert_objects(objects[name], found)
    copies = out / layout / {"yolo": "images", "voc": "JPEGImages"}[layout]
    assert (copies / "a.jpg").read_bytes() == next(iter(images)).read_bytes()


@pytest.mark.filterwarnings("ignore:OpenCV")
def test_data_sets_are_read_by_supervision(out: Path, images: dict[Path, Detections]) -> None:
    import supervision

    yolo, voc = out / "yolo", out / "voc"
    found = images[next(path for path in images if path.parent.name == "deep")]
    for data, shift in (
            (supervision.DetectionDataset.from_yolo(str(yolo / "images"), str(yolo / "labels"),
                                                    str(yolo / "data.yaml")), 0),
            # There pixels are counted from 1, and both edges are within.
            (supervision.DetectionDataset.from_pascal_voc(str(voc / "JPEGImages"), str(voc / "Annotations")),
             (-1, -1, 0, 0))):
        by_name = {Path(path).name: rows for path, rows in data.annotations.items()}
        assert [data.classes[label] for label in by_name["a-2.png"].class_id] == found.names
        np.testing.assert_allclose(by_name["a-2.png"].xyxy, found.boxes + np.array(shift), atol=TOLERANCE)
        assert len(by_name["b.png"]) == 0


def test_yolo_has_scores(out: Path, images: dict[Path, Detections]) -> None:
    lines = (out / "yolo" / "labels" / "a.txt").read_text().splitlines()
    found = next(iter(images.values()))
    np.testing.assert_allclose([float(line.split()[5]) for line in lines], found.scores, rtol=1e-6)
    assert {len(line.split()) for line in lines} == {6}
    assert (out / "yolo" / "labels" / "b.txt").read_text() == ""
    assert yaml.safe_load((out / "yolo" / "data.yaml").read_text(encoding="utf-8"))["names"][2] == "猫 & <co>"
    assert (out / "yolo" / "classes.txt").read_text(encoding="utf-8").splitlines() == list(CLASSES.names)


def test_csv_is_read_by_pandas(out: Path, images: dict[Path, Detections]) -> None:
    import pandas

    table = pandas.read_csv(out / "detections.csv")
    for path, found in images.items():
        rows = table[table["file"] == str(path)]
        np.testing.assert_allclose(rows[["x0", "y0", "x1", "y1"]], found.boxes, atol=TOLERANCE)
        np.testing.assert_allclose(rows["score"], found.scores, atol=1e-6)
        assert rows["label"].tolist() == found.labels.tolist()
        assert rows["name"].tolist() == found.names
        assert rows["category_id"].tolist() == [CLASSES.category_ids[label] for label in found.labels]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "'quoted", "''=1", "\uff1d1",
                                  "plain", "a,b\"c", "a;=1+1", ""])
def test_no_cell_is_a_formula(tmp_path: Path, text: str) -> None:
    found = found_in(40, 30, 0)
    with Saving(tmp_path, ["csv"], Classes.of([text, "dog", "x"], [1, 2, 3]), [], only_files=True) as saving:
        saving.add(text, Path("a.jpg"), found, is_file=False)
    with (tmp_path / "detections.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row, label in zip(rows, found.labels, strict=True):
        assert not row["file"].startswith(("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"))
        assert row["file"].removeprefix("'") == text
        assert label or row["name"].removeprefix("'") in (text, text.translate({9: "?", 10: "?", 13: "?"}))
    assert harmless(text).removeprefix("'") == text
    content = (tmp_path / "detections.csv").read_text(encoding="utf-8")
    assert ";=" not in content.replace('"a;=1+1"', "")      # quoted, it stays one cell whatever separates them


def test_json_has_the_lines_of_the_command(out: Path, images: dict[Path, Detections]) -> None:
    lines = [json.loads(line) for line in (out / "detections.jsonl").read_text().splitlines()]
    assert lines == [{"file": str(path), **found.to_dict((1, 17, 90))} for path, found in images.items()]


def test_cvat_takes_the_labels(out: Path, images: dict[Path, Detections], tmp_path: Path) -> None:
    """As our reader of CVAT's format does."""
    (tmp_path / "cvat").mkdir()
    (out / "labels" / "cvat.xml").rename(tmp_path / "cvat" / "annotations.xml")
    (tmp_path / "pictures").rename(tmp_path / "cvat" / "images")
    parts = [DataFolder(tmp_path / "cvat").read(split, Findings(strict=True))
             for split in DataFolder(tmp_path / "cvat").splits]
    read = {image.file_name: (part, index) for part in parts for index, image in enumerate(part.images)}
    for path, found in images.items():
        part, index = read[path.relative_to(tmp_path / "pictures").as_posix()]
        rows = np.flatnonzero(part.image_index == index)
        corners = part.boxes[rows].copy()
        corners[:, 2:] += corners[:, :2]
        np.testing.assert_allclose(corners, found.boxes, atol=TOLERANCE)
        assert [part.names[label] for label in part.labels[rows]] == found.names
        assert part.images[index].size == found.image_size


def test_label_studio_takes_the_labels(out: Path, images: dict[Path, Detections]) -> None:
    interface = ET.parse(out / "labels" / "label_studio.xml").getroot()
    control, shown = interface.find("RectangleLabels"), interface.find("Image")
    assert control is not None
    assert shown is not None
    assert [label.attrib["value"] for label in control] == list(CLASSES.names)
    tasks = json.loads((out / "labels" / "label_studio.json").read_text())
    for task, (path, found) in zip(tasks, images.items(), strict=True):
        address = unquote(task["data"][shown.attrib["value"].removeprefix("$")])
        served, _, below = address.partition("?d=")
        assert served == "/data/local-files/"
        assert path.as_posix().endswith(below)
        assert below.startswith("pictures/")
        prediction, = task["predictions"]
        corners = []
        for region in prediction["result"]:
            assert (region["from_name"], region["to_name"]) == (control.attrib["name"], shown.attrib["name"])
            assert (region["original_height"], region["original_width"]) == found.image_size
            value = region["value"]
            box = np.array([value["x"], value["y"], value["x"] + value["width"], value["y"] + value["height"]])
            corners.append(box / 100 * np.tile(found.image_size[::-1], 2))
        np.testing.assert_allclose(np.array(corners).reshape(-1, 4), found.boxes, atol=TOLERANCE)
        assert [region["value"]["rectanglelabels"] for region in prediction["result"]] == [[n] for n in found.names]
        np.testing.assert_allclose([region["score"] for region in prediction["result"]], found.scores, atol=1e-6)
        assert ("score" in prediction) == bool(len(found))


def test_frames_and_images_without_a_file_are_written_from_their_pixels(tmp_path: Path) -> None:
    pixels = np.full((30, 40, 3), 90, np.uint8)
    found = found_in(40, 30, 0)
    with Saving(tmp_path, EVERY, CLASSES, [], only_files=False, with_crops=True) as saving:
        saving.add("https://host/x.png", Path("x.png"), found, image=pixels, is_file=False)
        for frame in (0, 12):
            saving.add("clip.mp4", Path("clip.mp4"), found, image=pixels, is_file=False,
                       place={"frame": frame, "seconds": frame / 30})
    names = ["clip_000000.jpg", "clip_000012.jpg", "x.jpg"]
    assert sorted(path.name for path in (tmp_path / "yolo" / "images").iterdir()) == names
    assert sorted(objects_read(tmp_path / "yolo")) == names
    assert [json.loads(line).get("frame") for line in (tmp_path / "detections.jsonl").read_text().splitlines()] == [
        None, 0, 12]
    tasks = json.loads((tmp_path / "labels" / "label_studio.json").read_text())
    assert [task["data"]["image"] for task in tasks] == ["https://host/x.png", *(f"/data/local-files/?d={name}"
                                                                                 for name in names[:2])]


def test_crops_are_the_pixels_of_the_boxes(tmp_path: Path) -> None:
    pixels = np.zeros((30, 40, 3), np.uint8)
    pixels[10:20, 5:25] = 200
    boxes = np.array([[5.2, 10.1, 24.9, 19.5], [0, 0, 0, 0], [40, 30, 40, 30], [0, 0, 40, 30]], np.float32)
    found = Detections(boxes, np.ones(4, np.float32), np.array([0, 1, 1, 0]), ["../up", "con", "con", "../up"],
                       (30, 40))
    with Saving(tmp_path, [], Classes.of(["../up", "con"], [1, 2]), [], only_files=True, with_crops=True) as saving:
        saving.add("a.jpg", Path("a.jpg"), found, image=pixels)
    written = {path.relative_to(tmp_path / "crops").as_posix(): read_image(path)
               for path in (tmp_path / "crops").rglob("*.jpg")}
    assert {name: image.shape[:2] for name, image in written.items()} == {
        "_up/a-1.jpg": (10, 20), "_up/a-4.jpg": (30, 40), "_con/a-2.jpg": (1, 1), "_con/a-3.jpg": (1, 1)}
    assert written["_up/a-1.jpg"].min() > 190


def test_names_stay_in_their_folder_and_differ() -> None:
    names = Names()
    wanted = ["a", "A", "a", "../../a", "c:\\x", "", "..", "NUL", "new\nline\x1b[2J", "x" * 400, "\udcff", "猫"]
    given = [names.claim(name) for name in wanted]
    assert given[:4] == ["a", "A-2", "a-3", "_.._a"]
    assert len({name.casefold() for name in given}) == len(given)
    for name in given:
        assert name.isprintable()
        assert not set(name) & set('/\\:*?"<>|')
        assert name not in ("", ".", "..", "NUL")
        assert len(name.encode()) < 240


def test_classes_of_one_name_are_told_apart() -> None:
    assert Classes.of(["N/A", "cat", "N/A"], [12, 17, 26]).names == ("N/A", "cat", "N/A 26")
    assert Classes.of(["a", "a 2", "a"], [1, 5, 2]).names == ("a", "a 2", "a 2 2")     # a name for each class


def test_an_error_leaves_no_half_of_a_file(tmp_path: Path, images: dict[Path, Detections]) -> None:
    def save_one(error: type[BaseException], out: Path) -> None:
        with Saving(out, EVERY, CLASSES, list(images), only_files=True) as saving:
            path, found = next(iter(images.items()))
            saving.add(str(path), path, found)
            raise error

    def interrupted(error: type[BaseException], out: Path) -> list[str]:
        with pytest.raises(error):
            save_one(error, out)
        return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())

    kept = interrupted(KeyboardInterrupt, tmp_path / "kept")        # as far as it came
    assert len(json.loads((tmp_path / "kept" / "coco" / "images.json").read_text())["images"]) == 1
    assert {"detections.csv", "detections.jsonl", "labels/cvat.xml", "yolo/labels/a.txt"} <= set(kept)
    left = interrupted(RuntimeError, tmp_path / "left")
    assert {"yolo/labels/a.txt", "voc/Annotations/a.xml"} <= set(left)
    assert not {"detections.csv", "detections.jsonl", "coco/images.json", "labels/cvat.xml"} & set(left)
    assert not [name for name in left if "unfinished" in name]


def test_a_file_with_a_gap_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writing, number = whole_text.writing_whole, itertools.count()

    @contextmanager
    def full_once(path: Path) -> Iterator[SimpleNamespace]:
        def write(content: bytes) -> int:
            if next(number) == 2:       # after the header and a row
                raise OSError(28, "No space left on device")
            return file.write(content)

        with writing(path) as file:
            yield SimpleNamespace(write=write)

    monkeypatch.setattr(whole_text, "writing_whole", full_once)
    saving = Saving(tmp_path, ["csv"], CLASSES, [], only_files=True)
    saving.__enter__()
    saving.add("a.jpg", Path("a.jpg"), found_in(40, 30, 0))
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            saving.add("b.jpg", Path("b.jpg"), found_in(40, 30, 0))
    with pytest.raises(OSError, match="No space left"):
        saving.__exit__(None, None, None)
    assert list(tmp_path.iterdir()) == []
