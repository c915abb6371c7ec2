"""The page as a browser gets it: complete, harmless, and with the numbers of the evaluation."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from deformable_detr import cli
from deformable_detr.cli.app import WrongCallError
from deformable_detr.cli.outputs import report_file
from deformable_detr.datasets.findings import Findings
from deformable_detr.datasets.folder import DataFolder
from deformable_detr.detect.detector import Detector
from deformable_detr.detections import Detections
from deformable_detr.evaluation import CocoEvaluator
from deformable_detr.loading.dataset import DetectionDataset
from deformable_detr.loading.transforms import eval_transform
from deformable_detr.preprocessing import Preprocessing
from deformable_detr.report import History, Subject, write_report
from deformable_detr.weights import ModelInfo, save
from helpers.models import small_model

BLOOD_CELLS = Path(__file__).parents[1] / "fixtures" / "bccd"
Captured = pytest.CaptureFixture[str]

SCRIPT = "<script>alert(1)</script>"
BREAKOUT = "\"'><img src=x onerror=alert(1)>&amp;{{ 7 * 7 }}"
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """The elements, attributes and texts of a page; every element must be closed."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(file.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def addresses(self) -> set[str]:
        return {(value or "").partition(",")[0] for name, value in self.attributes if name in ("src", "href", "srcset")}


def subject_of(folder: Path, *, names: tuple[str, ...], file_name: str, objects: int, history: History | None = None,
               weights: str = "w") -> Subject:
    """Two images, and detections in the first of them."""
    (folder / "images").mkdir()
    for name in (file_name, "b.png"):
        PIL.Image.new("RGB", (60, 40), "grey").save(folder / "images" / name, "PNG")
    content = {"images": [{"id": 0, "file_name": file_name, "width": 60, "height": 40},
                          {"id": 1, "file_name": "b.png", "width": 60, "height": 40}],
               "categories": [{"id": label, "name": name} for label, name in enumerate(names)],
               "annotations": [{"id": number, "image_id": number, "category_id": 0, "bbox": [5, 5, 20, 20]}
                               for number in range(objects)]}
    (folder / "val.json").write_text(json.dumps(content))
    preprocessing = Preprocessing(size=40, max_size=60)
    info = ModelInfo((*names, "third"), tuple(range(len(names) + 1)), preprocessing,
                     {SCRIPT: BREAKOUT, "a\x1b[31m\x00": "b\x07"})
    data = DetectionDataset(folder, "val", eval_transform(preprocessing))
    evaluator = CocoEvaluator(data.annotations, info.names)
    if objects:
        evaluator.add(0, Detections(np.array([[5, 5, 25, 25], [30, 5, 50, 25]], np.float32),
                                    np.array([0.8, 0.4], np.float32), np.array([0, 1]), ["", ""], (40, 60)))
    return Subject(Detector.from_model(small_model(), info), weights, evaluator, history)


def written(subject: Subject, folder: Path) -> Page:
    write_report(folder / "report.html", subject, *subject.evaluator.count())
    return Page(folder / "report.html")


def test_names_are_text_and_nothing_else(tmp_path: Path) -> None:
    history = History({"epoch": [1.0], "loss": [2.0], SCRIPT: [1.0]}, f"</pre>{SCRIPT}{BREAKOUT}")
    page = written(subject_of(tmp_path, names=(SCRIPT, BREAKOUT), file_name=f"{BREAKOUT}.png", objects=2,
                              history=history, weights=f"{SCRIPT}/w;rm -rf \udcff"), tmp_path)
    assert not {"script", "iframe", "object", "embed", "form", "base", "link"} & set(page.elements)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert page.addresses() == {"data:image/jpeg;base64", "https://arxiv.org/abs/2008.08115"}
    assert page.elements.count("img") == 4      # the worst image and the best, the truth beside each
    for text in (SCRIPT, BREAKOUT,
                 "a\\x1b[31m\\x00", "b\\x07", f"</pre>{SCRIPT}{BREAKOUT}", f"--weights '{SCRIPT}/w;rm -rf \\udcff'"):
        assert text in page.text


def test_even_a_script_that_slips_through_would_not_run(tmp_path: Path) -> None:
    page = written(subject_of(tmp_path, names=("a", "b"), file_name="a.png", objects=1), tmp_path)
    assert ("content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in page.attributes


def test_long_names_are_cut(tmp_path: Path) -> None:
    subject = subject_of(tmp_path, names=("a" * 100_000, "b"), file_name="a.png", objects=1)
    assert "a" * 81 not in written(subject, tmp_path).text


@pytest.mark.parametrize(("num_classes", "objects"), [(2, 0), (2, 1), (1, 0), (1, 2), (300, 2)])
def test_few_objects_and_any_number_of_classes(tmp_path: Path, num_classes: int, objects: int) -> None:
    names = tuple(f"class {label}" for label in range(num_classes))
    page = written(subject_of(tmp_path, names=names, file_name="a.png", objects=objects), tmp_path)
    assert not re.search(r"\bnan\b", page.text)
    assert page.text.count("class 0") >= 2
    assert f"{num_classes:,} class" in page.text
    assert ("No detection is right" in page.text) == (objects == 0)


@pytest.mark.parametrize(("boxes", "sentence"), [
    ([[5, 5, 0, 9]], "1 object has a box that is empty, inverted or outside the image"),
    ([[5, 5, 9, -2], [70, 5, 9, 9], [5, 5, 9, 0]], "3 objects have boxes that are empty, inverted or outside"),
])
def test_objects_that_training_leaves_out_are_counted(tmp_path: Path, boxes: list[list[int]], sentence: str) -> None:
    subject = subject_of(tmp_path, names=("a", "b"), file_name="a.png", objects=2)
    content = json.loads((tmp_path / "val.json").read_text())
    content["annotations"] += [{"id": number, "image_id": 1, "category_id": 0, "bbox": box}
                               for number, box in enumerate(boxes, 10)]
    (tmp_path / "val.json").write_text(json.dumps(content))
    evaluator = CocoEvaluator(DataFolder(tmp_path).read("val", Findings()))
    evaluator.found = subject.evaluator.found
    page = written(replace(subject, evaluator=evaluator), tmp_path)
    assert sentence in " ".join(page.text.split())


def test_the_same_numbers_as_the_evaluation(tmp_path: Path) -> None:
    subject = subject_of(tmp_path, names=("a", "b"), file_name="a.png", objects=2)
    page = written(subject, tmp_path)
    metrics = subject.evaluator.summarize()
    for value in (metrics.AP, metrics.AR100, metrics.per_class["a"]):
        assert f"{value:.3f}" in page.text
    text = " ".join(page.text.split())
    assert "Classes that only the weights know; their detections are not counted: third" in text
    assert "2 images, 2 objects, 2 classes" in text
    assert "outside the image" not in text


def test_where_a_report_goes(tmp_path: Path) -> None:
    assert report_file(tmp_path / "new" / "folder") == tmp_path / "new" / "folder" / "report.html"
    assert report_file(tmp_path / "other" / "my page.HTML") == tmp_path / "other" / "my page.HTML"
    assert (tmp_path / "new" / "folder").is_dir()
    (tmp_path / "numbers").write_text("")
    (tmp_path / "folder.html").mkdir()
    for name in ("numbers", "folder.html"):
        with pytest.raises(WrongCallError, match=f"report: expected a f.*{name}"):
            report_file(tmp_path / name)


@pytest.fixture
def weights(tmp_path: Path) -> str:
    info = ModelInfo(("Platelets", "RBC", "WBC"), (0, 1, 2), Preprocessing(size=64, max_size=96))
    (tmp_path / "run").mkdir()
    path = tmp_path / "run" / "best.safetensors"
    save(path, small_model(), info)
    return str(path)


def test_eval_writes_it(weights: str, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "run" / "metrics.csv").write_text("epoch,loss,AP,AP50,AP75\n1,3,0.1,0.2,0.05\n2,2,0.2,0.3,0.1\n")
    assert cli.main(["eval", str(BLOOD_CELLS), "--weights", weights, "--report", str(tmp_path / "out"), "--json"]) == 0
    printed = capsys.readouterr().out
    numbers = json.loads(printed)
    page = Page(tmp_path / "out" / "report.html")
    assert f"{numbers['AR100']:.3f}" in page.text
    assert "BloodImage_" in page.text
    assert "epoch" in page.text


def test_eval_without_curves_that_can_be_read(weights: str, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "run" / "metrics.csv").write_text("no,table\n1\n")
    page = tmp_path / "page.html"
    assert cli.main(["eval", str(BLOOD_CELLS), "--weights", weights, "--report", str(page)]) == 0
    printed = capsys.readouterr()
    assert "metrics.csv: line 2" in printed.err
    assert f"report: {page}" in printed.out
    assert "epoch" not in Page(page).text


def test_eval_refuses_a_place_before_it_looks_at_any_image(weights: str, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "taken").write_text("")
    for place in ("taken", "taken/report.html"):
        assert cli.main(["eval", str(BLOOD_CELLS), "--weights", weights, "--report", str(tmp_path / place)]) == 2
        printed = capsys.readouterr()
        assert "taken" in printed.err
        assert printed.out == ""


def test_a_full_disk_takes_the_page_and_not_the_numbers(weights: str, tmp_path: Path, capsys: Captured,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("deformable_detr.report.page.write_whole", full)
    assert cli.main(["eval", str(BLOOD_CELLS), "--weights", weights, "--report", str(tmp_path / "out"), "--json"]) == 1
    printed = capsys.readouterr()
    assert "AP" in json.loads(printed.out)
    assert "no report: [Errno 28] No space left on device" in printed.err
