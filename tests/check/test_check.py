"""Every planted fault is found where it was planted, and nothing else is."""

import importlib.util
import pickle
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from deformable_detr.check import Checkup, Limits, check_data, duplicates
from deformable_detr.check.duplicates import MAX_DIFFERENT, find_alike
from deformable_detr.check.fix import write_fixed
from deformable_detr.check.images import GRID, ImageScan, ScannedImage
from deformable_detr.check.objects import find_duplicates
from deformable_detr.datasets.findings import DataError, Finding, Findings, Place
from deformable_detr.datasets.kinds import Fault
from deformable_detr.loading.dataset import DetectionDataset
from deformable_detr.loading.transforms import eval_transform
from deformable_detr.preprocessing import Preprocessing
from helpers.layouts import LAYOUTS, bccd
from helpers.planted import (
    NUM_QUERIES,
    Planted,
    noise,
    plant_coco,
    plant_parquet,
    plant_shards,
    plant_voc,
    plant_yolo,
    whole_data_sets,
)
from helpers.synthetic import box

LIMITS = Limits(Preprocessing(size=72, max_size=120), NUM_QUERIES, stride=2)
PLANTERS = {"COCO": plant_coco, "YOLO": plant_yolo, "VOC": plant_voc, "parquet": plant_parquet,
            "WebDataset": plant_shards}


def read(name: str, folder: Path) -> tuple[list[Planted], Checkup]:
    if name == "parquet" and not importlib.util.find_spec("pyarrow"):
        pytest.skip("pyarrow, an extra, is not installed")
    planted = PLANTERS[name](folder)
    return planted, check_data(folder, lambda _: LIMITS)


def where(finding: Finding, folder: Path) -> Planted:
    place = finding.place
    file = place.file.relative_to(folder).as_posix()
    return finding.kind, "" if file == "." else file, place.entry or place.line


def found_in(checkup: Checkup) -> list[Finding]:
    return [finding for _, _, kept in checkup.findings.groups() for finding in kept]


@pytest.mark.parametrize("name", PLANTERS)
def test_every_planted_fault_is_found_and_nothing_else(tmp_path: Path, name: str) -> None:
    planted, checkup = read(name, tmp_path / "data")
    assert Counter(where(finding, tmp_path / "data") for finding in found_in(checkup)) == Counter(planted)


def test_faults_of_whole_data_sets(tmp_path: Path) -> None:
    for kind, folder in whole_data_sets(tmp_path).items():
        assert kind in {finding.kind for finding in found_in(check_data(folder, lambda _: LIMITS))}


def test_every_kind_of_fault_has_been_planted(tmp_path: Path) -> None:
    planted = [place for name in ("COCO", "YOLO", "VOC") for place in PLANTERS[name](tmp_path / name)]
    assert len(planted) >= 40
    assert {kind for kind, _, _ in planted} | set(whole_data_sets(tmp_path / "whole")) == set(Fault)


@pytest.mark.parametrize("name", PLANTERS)
def test_training_stops_at_an_error_that_the_check_finds(tmp_path: Path, name: str) -> None:
    """One reading serves both: the first error of the strict one is among those that the other gathers."""
    _, checkup = read(name, tmp_path / "data")
    errors = {str(finding) for finding in found_in(checkup) if finding.kind.severity == "error"}
    with pytest.raises(DataError) as caught:
        DetectionDataset(tmp_path / "data", "train", eval_transform(LIMITS.preprocessing))
    assert str(caught.value).partition(" (and ")[0] in errors


def test_the_fast_part_decodes_no_image(tmp_path: Path) -> None:
    noise(tmp_path / "images" / "1.png", 1)
    plant_coco(tmp_path)
    checkup = check_data(tmp_path, lambda _: LIMITS, fast=True)
    kinds = {finding.kind for finding in found_in(checkup)}
    assert checkup.scan is None
    assert {Fault.BOX_TINY, Fault.PICTURE_LEAK, Fault.PICTURE_SIZE} <= kinds
    assert not kinds & {Fault.PICTURE_UNREADABLE, Fault.PICTURE_TRUNCATED, Fault.PICTURE_ROTATED}


@pytest.mark.parametrize("layout", ["COCO, simple", "YOLO, side by side", "VOC, split folders"])
def test_the_part_for_training_finds_files_of_two_splits(tmp_path: Path, layout: str) -> None:
    names, splits = bccd()
    LAYOUTS[layout](tmp_path, names, {"train": splits["train"][:5], "val": splits["train"][3:7]})
    expected = 2
    if layout == "YOLO, side by side":
        (tmp_path / "data.yaml").write_text("train: train\nval: train\nnames: [a, b, c]\n")
        expected = 5
    for fast in (True, False):
        groups = {kind: count for kind, count, _ in check_data(tmp_path, fast=fast).findings.groups()}
        assert groups.get(Fault.PICTURE_LEAK, 0) == expected


def test_real_images_have_no_findings(tmp_path: Path) -> None:
    for layout in ("COCO", "YOLO, Roboflow", "VOC"):
        LAYOUTS[layout](tmp_path / layout, *bccd())
        assert found_in(check_data(tmp_path / layout)) == []


@pytest.mark.parametrize("layout", ["COCO", "YOLO", "VOC", "parquet", "WebDataset"])
def test_a_library_shows_progress_only_if_asked(tmp_path: Path, layout: str, capfd: pytest.CaptureFixture[str]) -> None:
    if layout == "parquet":
        pytest.importorskip("pyarrow")
    titles: list[str] = []

    def progress(items, total, title, status=str):
        items = list(items)
        assert len(items) == total
        titles.append(title)
        return items

    names, splits = bccd()
    LAYOUTS[layout](tmp_path / "data", names, {split: truths[:3] for split, truths in splits.items()})
    checkup = check_data(tmp_path / "data")
    write_fixed(checkup, tmp_path / "quiet")
    assert capfd.readouterr().err == ""
    write_fixed(check_data(tmp_path / "data", progress=progress), tmp_path / "copy", progress)
    reading = {"COCO": [], "YOLO": ["reading labels"], "VOC": ["reading labels of train"], "parquet": ["reading rows"],
               "WebDataset": ["reading shards"]}[layout]
    assert {*reading, "decoding images", "copying train", "copying val"} <= set(titles)


def test_an_error_keeps_its_words() -> None:
    message = "labels/DataError: old.txt:3: expected numbers, got 'x'"
    assert str(DataError(message)) == str(pickle.loads(pickle.dumps(DataError(message)))) == message


def test_a_damaged_parquet_file_is_a_finding(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    LAYOUTS["parquet"](tmp_path, *bccd())
    file = next((tmp_path / "data").glob("train-00000*"))
    content = bytearray(file.read_bytes())
    content[20:2000] = bytes(1980)
    file.write_bytes(content)
    assert check_data(tmp_path).findings.count("error")


def test_findings_are_counted_beyond_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deformable_detr.datasets.findings.MAX_KEPT", 3)
    findings = Findings()
    findings.add_all(Fault.BOX_EMPTY, 5, ((Place(Path("a.json"), entry=f"annotation {n}"), "x") for n in range(5)))
    findings.add(Fault.BOX_EMPTY, Place(Path("a.json")), "x")
    assert [(count, len(kept)) for _, count, kept in findings.groups()] == [(6, 3)]
    assert (findings.count("error"), findings.count("warning")) == (0, 6)


def test_a_place_is_one_printable_line() -> None:
    assert str(Place(Path("a\nb\x1b[31m.txt"), 3)) == r"a\nb\x1b[31m.txt:3"


def test_similar_images_are_those_of_an_exhaustive_search_for_any_block_size(
        monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    films = generator.random((20, GRID * GRID)) < 0.5
    prints = films[generator.integers(0, 20, 300)] ^ (generator.random((300, GRID * GRID)) < 0.08)
    places = tuple((("train", "val")[number % 5 == 0], number) for number in range(300))
    scan = ImageScan(places, tuple(ScannedImage("PNG", (9, 9), (9, 9), 1, bytes(1), bits) for bits in prints))
    expected = []
    for number in range(1, 300):
        different = [int((prints[number] ^ prints[other]).sum()) for other in range(number)]
        alike = [other for other in range(number) if different[other] <= MAX_DIFFERENT]
        if alike:
            expected.append((number, min(alike, key=lambda other, number=number, different=different: (
                places[other][0] == places[number][0], different[other], other))))
    assert 50 < len(expected) < 250
    assert list(find_alike(scan, set())) == expected
    monkeypatch.setattr(duplicates, "AT_ONCE", 2100)
    tracemalloc.start()
    assert list(find_alike(scan, set())) == expected
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 800_000       # of which the images themselves take 400 000


def test_duplicate_boxes_are_those_of_an_exhaustive_search(write_data) -> None:
    generator = np.random.default_rng(0)
    boxes = generator.integers(-1, 2, (300, 4)) / 2 + 1
    annotations = DetectionDataset(write_data(annotations=[
        box(number, [7, 3, 9][number % 3], [20, 5][number % 2], corner.tolist(), iscrowd=int(number % 7 == 0))
        for number, corner in enumerate(boxes)]), "train", eval_transform(LIMITS.preprocessing)).annotations
    seen: dict[tuple, set[int]] = {}
    expected_same, expected_other = [], []
    for number in sorted(range(300), key=lambda number: (annotations.labels[number], number)):
        classes = seen.setdefault((annotations.image_index[number], *annotations.boxes[number]), set())
        if not annotations.crowd[number]:
            expected_same += [number] * (annotations.labels[number] in classes)
            expected_other += [number] * bool(classes - {annotations.labels[number]} and
                                              annotations.labels[number] not in classes)
        classes.add(annotations.labels[number])
    same, other = find_duplicates(annotations)
    assert np.flatnonzero(same).tolist() == sorted(expected_same)
    assert np.flatnonzero(other).tolist() == sorted(expected_other)
    assert len(expected_same) > 50
    assert len(expected_other) > 20
