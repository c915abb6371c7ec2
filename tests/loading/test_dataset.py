"""Data sets on disk: layouts, targets, what training leaves out, the orientation of images."""

import copy
import json
import logging
import pickle
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from deformable_detr.boxes import cxcywh_to_xyxy
from deformable_detr.datasets.findings import DataError
from deformable_detr.detections import Detections
from deformable_detr.evaluation import CocoEvaluator
from deformable_detr.loading.dataset import DetectionDataset
from deformable_detr.loading.transforms import eval_transform
from deformable_detr.preprocessing import Preprocessing
from helpers.synthetic import box, image_entry, paint

BCCD = Path(__file__).parent.parent / "fixtures" / "bccd"
PLAIN = eval_transform(Preprocessing(size=30, max_size=40))    # leaves the synthetic images at their size


def test_samples(write_data) -> None:
    dataset = DetectionDataset(write_data(), "train", PLAIN)
    assert dataset.names == ("dog", "cat")
    assert dataset.category_ids == (5, 20)
    assert dataset.annotations.file.name == "train.json"
    assert len(dataset) == 3
    image, target, _ = dataset[0]
    assert image.shape == (3, 30, 40)
    assert target.image_id == 7
    assert target.labels.tolist() == [1, 0]
    pixels = cxcywh_to_xyxy(target.boxes) * torch.tensor([40, 30, 40, 30])
    torch.testing.assert_close(pixels, torch.tensor([[2.0, 3, 12, 15], [5, 5, 14, 14]]))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda dataset: pickle.loads(pickle.dumps(dataset))],
                         ids=["copy", "deepcopy", "pickle"])
def test_a_copy_keeps_every_object(write_data, copied) -> None:
    dataset = DetectionDataset(write_data(), "train", PLAIN)
    other = copied(dataset)
    np.testing.assert_array_equal(other.annotations.boxes, dataset.annotations.boxes)
    np.testing.assert_array_equal(other.annotations.image_index, dataset.annotations.image_index)
    assert [len(other[index].target.labels) for index in range(3)] == [2, 1, 0]
    evaluator = CocoEvaluator(other.annotations)
    for index, image in enumerate(other.annotations.images):
        boxes, labels = (values.numpy() for values in other.truth(index))
        evaluator.add(image.id, Detections(boxes, np.ones(len(labels), np.float32), labels,
                                           [other.names[label] for label in labels], image.size))
    assert evaluator.summarize().AP == 1


def test_another_transform_leaves_the_data_set_as_it_was(write_data) -> None:
    dataset = DetectionDataset(write_data(), "train", PLAIN)
    other = dataset.with_transform(eval_transform(Preprocessing(size=60, max_size=80)))
    assert (dataset[0].image.shape, other[0].image.shape) == ((3, 30, 40), (3, 60, 80))
    assert len(other.annotations.boxes) == 3


def test_a_worker_gets_no_objects_beside_those_to_train_on(write_data) -> None:
    boxes = [box(number, 7, 5, [0, 0, 9, 9], iscrowd=1) for number in range(20_000)]
    dataset = DetectionDataset(write_data(annotations=[box(30_000, 7, 5, [1, 2, 3, 4]), *boxes]), "train", PLAIN)
    content = pickle.dumps(dataset.samples())
    assert len(content) < 10_000
    sent = pickle.loads(content)
    assert len(sent) == 3
    for index in range(3):
        (image, target, _), (other, expected, _) = sent[index], dataset[index]
        torch.testing.assert_close((image, target.boxes, target.labels), (other, expected.boxes, expected.labels))
        assert target.image_id == expected.image_id


def test_an_empty_image_is_a_sample(write_data) -> None:
    target = DetectionDataset(write_data(), "train", PLAIN)[2].target
    assert target.boxes.shape == (0, 4)
    assert target.labels.shape == (0,)
    assert target.labels.dtype == torch.int64


def test_evaluation_needs_only_its_split(write_data) -> None:
    folder = write_data("val")
    assert len(DetectionDataset(folder, "val", PLAIN)) == 3
    with pytest.raises(DataError, match=r"no split 'train'; the COCO data set there has val$"):
        DetectionDataset(folder, "train", PLAIN)


def test_layouts(write_data, tmp_path: Path) -> None:
    written = write_data()
    beside = tmp_path / "beside"
    (beside / "images").mkdir(parents=True)
    coco = tmp_path / "coco"
    (coco / "annotations").mkdir(parents=True)
    (coco / "train2017").mkdir()
    for source in (written / "images").iterdir():
        (beside / "images" / source.name).hardlink_to(source)
        (coco / "train2017" / source.name).hardlink_to(source)
    text = (written / "annotations" / "train.json").read_text()
    (beside / "train.json").write_text(text)
    (coco / "annotations" / "instances_train2017.json").write_text(text)
    for folder in (written, beside, coco):
        assert DetectionDataset(folder, "train", PLAIN)[1].target.image_id == 3


def test_fixture_is_true_data() -> None:
    for split in ("train", "val"):
        dataset = DetectionDataset(BCCD, split, eval_transform(Preprocessing(size=120, max_size=160)))
        assert len(dataset) == 8
        assert dataset.names == ("RBC", "WBC", "Platelets")
        for image, target, _ in map(dataset.__getitem__, range(8)):
            assert image.shape == (3, 120, 160)
            assert set(target.labels.tolist()) == {0, 1, 2}


def test_folders_that_are_not_there(tmp_path: Path, write_data) -> None:
    with pytest.raises(DataError, match="expected the folder of a data set, got nothing"):
        DetectionDataset(tmp_path / "nowhere", "train", PLAIN)
    folder = write_data()
    (folder / "images").rename(folder / "elsewhere")
    with pytest.raises(DataError, match=r"expected its images in the folder .*images, got nothing"):
        DetectionDataset(folder, "train", PLAIN)


def test_absent_images_are_counted_when_the_data_set_is_opened(write_data) -> None:
    images = [image_entry(number, f"{number}.png", 40, 30) for number in range(5)]
    folder = write_data(images=[*images, image_entry(7, "a.png", 40, 30)], annotations=[])
    words = r"train.json: image 0: '0.png' is not in .*images \(and 4 more like it\)$"
    with pytest.raises(DataError, match=words):
        DetectionDataset(folder, "train", PLAIN)


@pytest.mark.parametrize("name", ["../a.png", "/etc/hostname", "images/../../a.png"])
def test_file_names_that_leave_the_folder(write_data, name: str) -> None:
    folder = write_data(images=[image_entry(7, name, 40, 30)], annotations=[])
    paint(folder / "a.png", 40, 30)
    with pytest.raises(DataError, match="image 7: file_name: expected a file inside"):
        DetectionDataset(folder, "train", PLAIN)


def test_links_that_lead_outside(write_data) -> None:
    folder = write_data(images=[image_entry(7, "link.png", 40, 30)], annotations=[])
    paint(folder.parent / "outside.png", 40, 30)
    (folder / "images" / "link.png").symlink_to(folder.parent / "outside.png")
    with pytest.raises(DataError, match=r"image 7: expected a file inside .*, got a link to .*outside.png"):
        DetectionDataset(folder, "train", PLAIN)


def test_linked_folders_that_lead_outside(write_data, tmp_path: Path) -> None:
    folder = write_data(images=[image_entry(7, "sub/a.png", 40, 30)], annotations=[])
    paint(tmp_path / "a.png", 40, 30)
    (folder / "images" / "sub").symlink_to(tmp_path)
    with pytest.raises(DataError, match="image 7: expected a file inside"):
        DetectionDataset(folder, "train", PLAIN)


def test_links_within_and_a_linked_image_folder_are_fine(write_data) -> None:
    folder = write_data(images=[image_entry(7, "link.png", 40, 30)], annotations=[])
    (folder / "images" / "link.png").symlink_to("a.png")
    (folder / "images").rename(folder / "disk")
    (folder / "images").symlink_to(folder / "disk")
    assert DetectionDataset(folder, "train", PLAIN)[0].image.shape == (3, 30, 40)


@pytest.mark.parametrize("name", ["x" * 300, "circle.png", "a.png/b.png", "."])
def test_names_that_no_file_can_have(write_data, name: str) -> None:
    folder = write_data(images=[image_entry(7, name, 40, 30)], annotations=[])
    (folder / "images" / "circle.png").symlink_to("circle.png")
    with pytest.raises(DataError, match=r"image 7: .* is not in "):
        DetectionDataset(folder, "train", PLAIN)


def test_training_leaves_out_and_clips_and_logs_it_once(write_data, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_data(annotations=[
        box(1, 7, 5, [1, 1, 0, 5]), box(2, 7, 5, [1, 1, 5, -2]),             # no area
        box(3, 7, 5, [50, 1, 5, 5]),                                         # outside
        box(4, 7, 20, [30, 20, 20, 20]), box(5, 7, 5, [-3, 2, 8, 8]),        # across the edge
        box(6, 7, 20, [30, 20, 10.4, 10.2]),                                 # rounding
        box(7, 7, 5, [0, 0, 40, 30], iscrowd=1), box(8, 7, 5, [0, 0, 0, 0], iscrowd=1)])
    with caplog.at_level(logging.WARNING, "deformable_detr"):
        dataset = DetectionDataset(folder, "train", PLAIN)
    said = [record.getMessage() for record in caplog.records]
    where = dataset.annotations.file
    assert [message.partition(": x ")[0] for message in said] == [
        f"boxes without area: left out of training, missed in evaluation: 1 (first: {where}: annotation 1",
        f"boxes with swapped corners: left out of training, missed in evaluation: 1 (first: {where}: annotation 2",
        f"boxes outside their image: left out of training, missed in evaluation: 1 (first: {where}: annotation 3",
        f"boxes that extend beyond their image, which are clipped for training: 2 (first: {where}: annotation 4"]
    boxes, labels = dataset.truth(0)
    assert boxes.tolist() == [[30, 20, 40, 30], [0, 2, 5, 10], [30, 20, 40, 30]]
    assert labels.tolist() == [1, 0, 1]
    assert len(dataset.annotations.ids) == 8       # evaluation sees all of the file's objects


@pytest.mark.parametrize(("orientation", "listed_size", "top_left"), [
    (6, (30, 40), (255, 0)),       # a quarter turn, and the list obeys it: the bottom left comes to the top
    (6, (40, 30), (0, 0)),         # the list does not: as stored
    (3, (40, 30), (255, 255)),     # upside down; the size tells nothing: upright
])
def test_the_listed_size_decides_the_orientation(write_data, orientation: int, listed_size: tuple[int, int],
                                              top_left: tuple[int, int]) -> None:
    folder = write_data(images=[image_entry(7, "turned.jpg", *listed_size)], annotations=[])
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    paint(folder / "images" / "turned.jpg", 40, 30, exif=exif, quality=95)
    pixels = DetectionDataset(folder, "train", PLAIN).image(0)
    assert pixels.shape[1::-1] == listed_size
    np.testing.assert_allclose(pixels[0, 0, :2].astype(int), top_left, atol=30)


def test_an_image_of_another_size(write_data) -> None:
    dataset = DetectionDataset(write_data(images=[image_entry(7, "a.png", 41, 30)], annotations=[]), "train", PLAIN)
    with pytest.raises(DataError, match=r"image 7: expected 41 x 30 pixels, got 40 x 30 in .*a.png"):
        dataset[0]


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_a_file_that_is_no_image(write_data, content: bytes) -> None:
    folder = write_data()
    (folder / "images" / "a.png").write_bytes(content)
    dataset = DetectionDataset(folder, "train", PLAIN)
    with pytest.raises(DataError, match=r"train.json: image 7: .*a.png"):
        dataset[0]
    assert dataset[1].image.shape == (3, 40, 30)


def test_a_truncated_image(write_data) -> None:
    folder = write_data(images=[image_entry(7, "cut.jpg", 640, 480)], annotations=[])
    paint(folder / "images" / "cut.jpg", 640, 480)
    whole = (folder / "images" / "cut.jpg").read_bytes()
    (folder / "images" / "cut.jpg").write_bytes(whole[:len(whole) // 2])
    with pytest.raises(DataError, match=r"image 7: .*cut.jpg"):
        DetectionDataset(folder, "train", PLAIN)[0]


def test_unusual_images_train(write_data) -> None:
    folder = write_data(images=[image_entry(1, "grey.png", 9, 7), image_entry(2, "dot.png", 1, 1),
                                image_entry(3, "line.png", 1, 400)], annotations=[box(1, 3, 5, [0, 100, 1, 50])])
    PIL.Image.new("L", (9, 7), 99).save(folder / "images" / "grey.png")
    paint(folder / "images" / "dot.png", 1, 1)
    paint(folder / "images" / "line.png", 1, 400)
    dataset = DetectionDataset(folder, "train", PLAIN)
    assert [tuple(dataset[index].image.shape) for index in range(3)] == [(3, 30, 38), (3, 30, 30), (3, 40, 1)]


def test_nothing_of_the_truth_is_changed_by_use(write_data) -> None:
    dataset = DetectionDataset(write_data(), "train", PLAIN)
    before = dataset.truth(0)[0].clone()
    first = dataset[0].target.boxes
    torch.testing.assert_close(dataset[0].target.boxes, first)
    torch.testing.assert_close(dataset.truth(0)[0], before)
    np.testing.assert_array_equal(dataset.annotations.boxes[0], [2, 3, 10, 12])
    assert json.loads(dataset.annotations.file.read_text())["annotations"][0]["bbox"] == [2, 3, 10, 12]
