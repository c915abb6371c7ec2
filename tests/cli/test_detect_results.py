"""`ddetr detect --save`, `--crop`, `--classes` and `--threshold`: what is written, what is not, and wrong calls."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deformable_detr import Detector, cli
from deformable_detr.datasets.findings import Findings
from deformable_detr.datasets.folder import DataFolder

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def pictures(folder: Path) -> Path:
    pictures = folder / "unlabelled"
    pictures.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures / f"{number}.png")
    return pictures


@pytest.fixture
def call(tiny_weights: str) -> list[str]:
    return ["detect", "unlabelled", "--weights", tiny_weights, "--threshold", "0"]


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_several_formats_at_once_say_the_same(pictures: Path, call: list[str], tiny_weights: str,
                                              capsys: Captured) -> None:
    from pycocotools.coco import COCO

    assert cli.main([*call, "--save", "json,csv,coco,yolo,voc,labels", "--out", "found"]) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("unlabelled/0.png: ")
    written = sorted(path.name for path in Path("found").iterdir())
    assert written == ["coco", "detections.csv", "detections.jsonl", "labels", "voc", "yolo"]
    detector = Detector(tiny_weights, device="cpu")
    results = COCO("found/coco/images.json").loadRes("found/coco/results.json")
    objects = DataFolder(Path("found/yolo")).read("train", Findings())
    number = 0
    for index, path in enumerate(sorted(pictures.iterdir())):
        found = detector(path, threshold=0)
        identity = next(key for key, image in results.imgs.items() if image["file_name"] == path.name)
        rows = results.loadAnns(results.getAnnIds(imgIds=[identity]))
        for row, right in zip(rows, found.to_coco(identity), strict=True):
            assert row["category_id"] == right["category_id"]
            np.testing.assert_allclose(row["bbox"], right["bbox"], atol=0.05)
        assert lines(Path("found/detections.jsonl"))[index]["detections"][0].keys() == found.to_dict(
            (1, 17, 90))["detections"][0].keys()
        number += len(rows)
    with Path("found/detections.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == number
    assert objects.names == ("cat", "dog", "猫")


def test_the_folder_for_labelling_can_be_trained_on(pictures: Path, call: list[str], capsys: Captured) -> None:
    assert cli.main([*call, "--top-k", "3", "--save", "yolo"]) == 0
    assert cli.main(["check", "detections/yolo"]) == 0
    capsys.readouterr()
    yolo = Path("detections/yolo")
    assert sorted(path.name for path in yolo.iterdir()) == ["classes.txt", "data.yaml", "images", "labels"]
    assert sorted(path.name for path in (yolo / "images").iterdir()) == ["0.png", "1.png", "2.png"]
    assert all(len(line.split()) == 6 for path in (yolo / "labels").iterdir() for line in path.read_text().splitlines())
    assert (yolo / "images" / "0.png").read_bytes() == (pictures / "0.png").read_bytes()


@pytest.mark.parametrize(("flags", "written"), [
    ([], ["0.png", "1.png", "2.png"]),
    (["--save", "csv"], ["detections.csv"]),
    (["--save", "csv,drawings"], ["0.png", "1.png", "2.png", "detections.csv"]),
    (["--save", "csv", "--json"], ["detections.csv"]),
    (["--crop", "--json"], ["crops"]),
    (["--crop"], ["0.png", "1.png", "2.png", "crops"]),
])
def test_what_is_written(pictures: Path, call: list[str], flags: list[str], written: list[str],
                         capsys: Captured) -> None:
    assert cli.main([*call, *flags]) == 0
    assert sorted(path.name for path in Path("detections").iterdir()) == written
    output = capsys.readouterr().out.splitlines()
    if "--json" in flags:
        assert [json.loads(line)["file"] for line in output] == [f"unlabelled/{number}.png" for number in range(3)]
    assert any("->" in line for line in output) == ("0.png" in written)


def test_crops(pictures: Path, call: list[str]) -> None:
    assert cli.main([*call, "--top-k", "2", "--crop", "--json"]) == 0
    crops = list(Path("detections/crops").rglob("*.jpg"))
    assert len(crops) == 6
    assert {path.parent.name for path in crops} <= {"cat", "dog", "猫"}


@pytest.mark.parametrize("place", ["json", "csv", "coco", "yolo", "voc", "labels", "crop"])
def test_results_are_never_overwritten(pictures: Path, call: list[str], place: str, capsys: Captured) -> None:
    flags = ["--crop"] if place == "crop" else ["--save", place]
    assert cli.main([*call, *flags, "--json"]) == 0
    before = {path: path.read_bytes() for path in Path("detections").rglob("*") if path.is_file()}
    capsys.readouterr()
    assert cli.main([*call, *flags, "--json"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"ddetr: {' '.join(flags)}: detections/")
    assert "never overwritten; name another folder by --out" in output.err
    assert {path: path.read_bytes() for path in Path("detections").rglob("*") if path.is_file()} == before


def test_bad_images_are_left_out(pictures: Path, call: list[str], capsys: Captured) -> None:
    (pictures / "1.png").write_bytes(b"no image")
    assert cli.main([*call, "--save", "json,coco,yolo,voc,labels,csv", "--out", "found"]) == 1
    assert "1.png" in capsys.readouterr().err
    assert [line["file"] for line in lines(Path("found/detections.jsonl"))] == ["unlabelled/0.png", "unlabelled/2.png"]
    assert sorted(path.name for path in Path("found/yolo/images").iterdir()) == ["0.png", "2.png"]
    assert len(json.loads(Path("found/labels/label_studio.json").read_text())) == 2


def test_classes_are_chosen_before_the_best(pictures: Path, call: list[str], capsys: Captured) -> None:
    def found(*flags: str) -> list[list[tuple[str, float]]]:
        assert cli.main([*call, "--json", *flags]) == 0
        return [[(each["name"], each["score"]) for each in json.loads(line)["detections"]]
                for line in capsys.readouterr().out.splitlines()]

    for every, some in zip(found(), found("--classes", "cat,猫", "--top-k", "5"), strict=True):
        assert some == [each for each in every if each[0] != "dog"][:5]
    for every, some in zip(found(), found("--classes", "dog", "--classes", "cat"), strict=True):
        assert some == [each for each in every if each[0] != "猫"]


def test_each_class_may_have_a_threshold(pictures: Path, call: list[str], capsys: Captured) -> None:
    def found(threshold: str) -> list[tuple[str, float]]:
        assert cli.main([*call[:-1], threshold, "--json"]) == 0
        return [(each["name"], each["score"]) for line in capsys.readouterr().out.splitlines()
                for each in json.loads(line)["detections"]]

    every = found("0")
    cut = float(np.median([score for name, score in every if name == "cat"]))
    some = found(f"cat={cut:.4f},dog=0,猫=1")
    assert {name for name, _ in some} == {"cat", "dog"}
    assert sum(name == "dog" for name, _ in some) == sum(name == "dog" for name, _ in every)
    assert 0 < sum(name == "cat" for name, _ in some) < sum(name == "cat" for name, _ in every)
    assert found("dog=0") == [each for each in every if each[0] == "dog"]      # the others have that of the weights


@pytest.mark.parametrize(("flags", "message"), [
    ("--threshold cat=2", "--threshold: expected a number from 0 to 1, got cat=2"),
    ("--threshold cat=0.5,0.3", "as in cat=0.5,dog=0.3, got cat=0.5,0.3"),
    ("--threshold cow=0.5", "classes: expected some of ['cat', 'dog', '猫'], got 'cow'"),
    ("--classes cow", "classes: expected some of ['cat', 'dog', '猫'], got 'cow'"),
    ("--save xml,coco", "--save: expected some of drawings, json, csv, coco, yolo, voc, labels, got xml"),
    ("--save-txt", "unknown option --save-txt; ddetr calls it --save yolo"),
])
def test_wrong_calls(pictures: Path, call: list[str], flags: str, message: str, capsys: Captured) -> None:
    threshold = call[:-2] if "--threshold" in flags else call
    assert cli.main([*threshold, *flags.split()]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert message in output.err.splitlines()[-1]
    assert not Path("detections").exists()


def test_a_name_that_is_a_formula_or_markup(pictures: Path, call: list[str]) -> None:
    (pictures / "0.png").rename(pictures / "=HYPERLINK(1)<b>&.png")
    (pictures / "1.png").rename(pictures / "new\nline\x1b[31m.png")
    (pictures / "2.png").rename(pictures / "\udcff.png")        # of other bytes than UTF-8
    every = "json,csv,coco,voc,labels,yolo"
    assert cli.main([*call, "--top-k", "1", "--save", every, "--crop", "--out", "found"]) == 0
    for folder in ("voc", "yolo"):
        assert len(DataFolder(Path("found") / folder).read("train", Findings(strict=True)).images)
    names = {path.name for path in Path("found/yolo/images").iterdir()}
    assert names == {"=HYPERLINK(1)_b_&.png", "new_line_[31m.png", "_.png"}
    Path("found/cvat").mkdir()
    Path("found/labels/cvat.xml").rename("found/cvat/annotations.xml")
    content = Path("found/cvat/annotations.xml").read_text(encoding="utf-8")
    assert 'name="=HYPERLINK(1)&lt;b&gt;&amp;.png"' in content
    assert 'name="new?line?[31m.png"' in content
    with Path("found/detections.csv").open(encoding="utf-8", newline="") as file:
        files = [row["file"] for row in csv.DictReader(file)]
    assert all(name.startswith("unlabelled/") for name in files)


def test_frames_of_a_video_are_images_of_their_own(folder: Path, call: list[str], capsys: Captured) -> None:
    pytest.importorskip("av")
    from helpers.videos import numbered, save_video

    save_video(folder / "clip.mp4", numbered(4))
    save = ["--top-k", "2", "--every", "2", "--save", "json,csv,coco,yolo,voc,labels", "--crop", "--json"]
    assert cli.main(["detect", "clip.mp4", *call[2:], *save]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines(Path("detections/detections.jsonl")) == printed
    names = ["clip_000000.jpg", "clip_000002.jpg"]
    images = json.loads(Path("detections/coco/images.json").read_text())["images"]
    assert [image["file_name"] for image in images] == names
    assert sorted(path.name for path in Path("detections/yolo/images").iterdir()) == names
    assert sorted(path.name for path in Path("detections/voc/JPEGImages").iterdir()) == names
    with Path("detections/detections.csv").open(encoding="utf-8") as file:
        assert {row["frame"] for row in csv.DictReader(file)} == {"0", "2"}
    assert len(list(Path("detections/crops").rglob("clip_00000?-[12].jpg"))) == 4
