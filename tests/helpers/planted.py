"""Data sets with faults planted in them. Each function writes one and says where which fault is."""

import json
import struct
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from deformable_detr.datasets.kinds import Kind
from deformable_detr.images import EXIF_ORIENTATION
from helpers.layouts import Truth, parquet, put, shards
from helpers.synthetic import box, image_entry

WIDTH, HEIGHT = 96, 72
NUM_QUERIES = 20

Planted = tuple[Kind, str, int | str | None]    # the file's end, and a line or an entry


def noise(file: Path, seed: int, change: int = 0, **options: Any) -> None:
    """An image like no other: blocks of random grey, the first `change` of them different."""
    file.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(40, 215, (9, 12), dtype=np.uint8)
    blocks.ravel()[:change] += 20
    pixels = np.kron(blocks, np.ones((8, 8), np.uint8))
    PIL.Image.fromarray(pixels).convert("RGB").save(file, **options)


def whole_data_sets(folder: Path) -> dict[Kind, Path]:
    """Data sets that are at fault as a whole, by the fault."""
    def coco(name: str, boxes: list[dict[str, Any]], images: list[dict[str, Any]] | None = None) -> Path:
        noise(folder / name / "images" / "1.png", 1)
        listed = [image_entry(1, "1.png", WIDTH, HEIGHT)] if images is None else images
        for split in ("train", "val"):
            (folder / name / f"{split}.json").write_text(json.dumps(
                {"images": listed, "annotations": boxes, "categories": [{"id": 1, "name": "cell"}]}))
        return folder / name

    fractions = [box(number, 1, 1, [0.1, 0.2, 0.3, 0.4]) for number in range(20)]
    corners = [box(number, 1, 1, [40 + number, 30 + number, 60 + number, 50 + number]) for number in range(20)]
    both = coco("both", [box(1, 1, 1, [4, 4, 20, 20])])
    noise(both / "train" / "2.png", 2)
    (both / "train" / "2.xml").write_text("<annotation></annotation>")
    nameless = folder / "nameless"
    noise(nameless / "images" / "1.png", 1)
    (nameless / "labels").mkdir()
    (nameless / "labels" / "1.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    deep = coco("deep", [])
    (deep / "train.json").write_text("[" * 100_000)
    return {Kind.BOX_FRACTIONS: coco("fractions", fractions), Kind.BOX_CORNERS: coco("corners", corners),
            Kind.NO_OBJECTS: coco("no objects", []), Kind.NO_IMAGES: coco("no images", [], []),
            Kind.NAMES_MISSING: nameless, Kind.OTHER_ANNOTATIONS: both, Kind.ANNOTATION_FILE: deep}


def huge_png() -> bytes:
    """A PNG that claims 40 000 x 30 000 pixels."""
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    header = struct.pack(">IIBBBBB", 40_000, 30_000, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*parts) for parts in chunks)


def plant_coco(folder: Path) -> list[Planted]:
    images = folder / "images"
    rotated = PIL.Image.Exif()
    rotated[EXIF_ORIENTATION] = 3
    for number in (*range(1, 12), 20, 21):
        noise(images / f"{number}.png", number)
    noise(images / "cut.jpg", 30)
    whole = (images / "cut.jpg").read_bytes()
    (images / "cut.jpg").write_bytes(whole[:len(whole) * 2 // 3])
    (images / "text.png").write_text("no image")
    (images / "empty.png").touch()
    (images / "huge.png").write_bytes(huge_png())
    noise(images / "turned.jpg", 31, exif=rotated)
    noise(images / "truly.jpg", 32, format="PNG")
    (images / "copy.png").write_bytes((images / "1.png").read_bytes())
    (images / "leak.png").write_bytes((images / "2.png").read_bytes())
    noise(images / "alike.png", 3, change=1)
    noise(images / "leaking.png", 4, change=1)
    noise(images / "unlisted.png", 34)
    noise(images / ".hidden.png", 34)
    noise(folder.parent / "outside.png", 33)
    (images / "link.png").symlink_to(folder.parent / "outside.png")

    def entry(number: int, name: str, width: int = WIDTH, height: int = HEIGHT) -> dict[str, Any]:
        return image_entry(number, name, width, height)

    listed: list[Any] = [entry(number, f"{number}.png") for number in range(1, 12)]
    listed += [entry(101, "102.png"), entry(103, "../outside.png"), entry(104, "a\nb.png"), entry(105, "link.png"),
               entry(106, "text.png"), entry(107, "empty.png"), entry(108, "huge.png", 40_000, 30_000),
               entry(109, "cut.jpg"), entry(110, "turned.jpg"), entry(111, "truly.jpg"), entry(112, "copy.png"),
               entry(113, "alike.png"), entry(114, "11.png"), entry(5, "5.png"), {"id": 115, "file_name": "8.png"},
               "no object", image_entry(116, "20.png", 90, 90)]
    boxes = [box(200 + index, 1 + index % 8, 1, [2 + index // 8 * 2, 3, 60, 50]) for index in range(101)]
    boxes += [box(400 + index, 9, 1, [index, 1, 50, 40]) for index in range(NUM_QUERIES + 1)]
    boxes += [
        {**box(501, 1, 1, [1, 2, 3, 4]), "bbox": [1, 2, 3]}, box(502, 1, 7, [1, 1, 9, 9]),
        box(503, 999, 1, [1, 1, 9, 9]), box(504, 10, 3, [0.1, 0.2, 0.3, 0.4]),
        box(505, 10, 3, [5, 5, 0, 9]), box(506, 10, 3, [50, 50, -9, -9]),
        box(507, 10, 3, [200, 5, 9, 9]), box(508, 10, 3, [90, 5, 20, 9]), box(509, 10, 3, [30, 30, 20, 20]),
        box(510, 10, 3, [30, 30, 20, 20]), box(511, 10, 5, [60, 30, 20, 20]), box(512, 10, 3, [60, 30, 20, 20]),
        box(513, 10, 3, [70, 5, 0.4, 0.4]), box(514, 10, 3, [2, 2, 9, 9]), box(514, 10, 3, [2, 20, 9, 9]),
        box(515, 10, 4, [70, 50, 9, 9]), {**box(516, 10, 3, [1, 1, 9, 9]), "iscrowd": 2}, "no object either"]
    categories = [{"id": number, "name": name} for number, name in (
        (1, "cell"), (3, "dog"), (4, "Cell"), (5, "bird"), (6, "bird"), (8, "unseen"))]
    train = {"images": listed, "annotations": boxes, "categories": categories}
    val = {"images": [entry(20, "21.png"), entry(21, "leak.png"), entry(22, "leaking.png")],
           "annotations": [box(1, 20, 1, [4, 4, 20, 20]), box(2, 21, 3, [4, 4, 20, 20]), box(3, 20, 4, [9, 4, 20, 20])],
           "categories": [{"id": 1, "name": "cell"}, {"id": 3, "name": "dog"}, {"id": 4, "name": "Cell"}]}
    (folder / "train.json").write_text(json.dumps(train))
    (folder / "val.json").write_text(json.dumps(val))
    here, there = "train.json", "val.json"
    return [
        (Kind.ENTRY, here, "image 115"), (Kind.ENTRY, here, f"images[{len(listed) - 2}]"),
        (Kind.ENTRY, here, "annotation 501"), (Kind.ENTRY, here, "annotation 516"),
        (Kind.ENTRY, here, f"annotations[{len(boxes) - 1}]"),
        (Kind.ID_TWICE, here, "image id 5"), (Kind.ID_TWICE, here, "category name 'bird'"),
        (Kind.ANNOTATION_ID_TWICE, here, "annotation 514"), (Kind.CLASS_UNKNOWN, here, "annotation 502"),
        (Kind.PICTURE_UNKNOWN, here, "annotation 503"), (Kind.PICTURE_MISSING, here, "image 101"),
        (Kind.NAME_REFUSED, here, "image 103"), (Kind.NAME_REFUSED, here, "image 104"),
        (Kind.NAME_REFUSED, here, "image 105"), (Kind.PICTURE_UNREADABLE, here, "image 106"),
        (Kind.PICTURE_UNREADABLE, here, "image 107"), (Kind.PICTURE_UNREADABLE, here, "image 108"),
        (Kind.PICTURE_TRUNCATED, here, "image 109"), (Kind.PICTURE_ROTATED, here, "image 110"),
        (Kind.PICTURE_MISLABELLED, here, "image 111"), (Kind.PICTURE_DUPLICATE, here, "image 112"),
        (Kind.PICTURE_SIMILAR, here, "image 113"), (Kind.PICTURE_TWICE, here, "image 11"),
        (Kind.PICTURE_TWICE, here, "image 114"), (Kind.PICTURE_SIZE, here, "image 116"),
        (Kind.PICTURE_UNLISTED, "images/unlisted.png", None),
        (Kind.PICTURE_LEAK, there, "image 21"), (Kind.PICTURE_SIMILAR_LEAK, there, "image 22"),
        (Kind.BOX_FIRST_PIXEL, here, "annotation 504"), (Kind.BOX_EMPTY, here, "annotation 505"),
        (Kind.BOX_SWAPPED, here, "annotation 506"), (Kind.BOX_OUTSIDE, here, "annotation 507"),
        (Kind.BOX_OVER, here, "annotation 508"), (Kind.BOX_DUPLICATE, here, "annotation 510"),
        (Kind.BOX_TWO_CLASSES, here, "annotation 511"), (Kind.BOX_TINY, here, "annotation 504"),
        (Kind.BOX_TINY, here, "annotation 513"),
        (Kind.OBJECTS_MANY, here, "image 9"), (Kind.CLASS_ABSENT, here, "class 'unseen'"),
        (Kind.CLASS_RARE, here, "class 'Cell'"), (Kind.CLASS_RARE, here, "class 'bird'"),
        (Kind.CLASS_RARE, here, "class 'dog'"), (Kind.PICTURES_EMPTY, here, None),
        (Kind.CLASS_IMBALANCE, here, "class 'Cell'"), (Kind.CLASS_IMBALANCE, here, "class 'bird'"),
        (Kind.CLASS_ALIKE, here, "class 'cell'"), (Kind.IDS_SPARSE, here, None), (Kind.CLASSES_DIFFER, there, None)]


def plant_yolo(folder: Path) -> list[Planted]:
    for split, numbers in (("train", range(1, 11)), ("val", range(11, 14))):
        for number in numbers:
            noise(folder / "images" / split / f"{number}.png", number)
            label = folder / "labels" / split / f"{number}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text("0 0.5 0.5 0.5 0.5\n1 0.25 0.25 0.5 0.25\n" if number < 11 else "")
    train = folder / "labels" / "train"
    (train / "1.txt").write_text("0 0.5 0.5 0.5 0.5\n\n0 0.5 0.5 0.5\n1 0.5 half 0.5 0.5\n7 0.5 0.5 0.5 0.5\n"
                                 "0 48 36 20 20\n0 1.5 0.5 0.25 0.25\n0 0.5 0.5 0 0.5\n1 0.5 0.5 -0.5 0.5\n"
                                 "0 0.5 0.5 nan 0.5\n0.5 0.5 0.5 0.5 0.5\n0 0.9 0.5 0.5 0.5\n1 0.25 0.25 0.25 0.25\n"
                                 "1 0.25 0.25 0.25 0.25\n0 0.5 0.5 0.01 0.01\n")
    (train / "2.txt").unlink()
    (train / "3.txt").write_bytes(b"0 0.5 \xff 0.5 0.5")
    (train / "4.txt").unlink()
    (folder.parent / "secret.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (train / "4.txt").symlink_to(folder.parent / "secret.txt")
    (train / "orphan.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (folder / "images" / "train" / "text.png").write_text("no image")
    (folder / "images" / "train" / "loop").symlink_to(folder / "images")
    (folder / "images" / "train" / "nothing.png").symlink_to("gone.png")
    (folder / "labels" / "val" / "11.txt").write_text("0 0.5 0.5 0.5 0.5\n1 0.25 0.25 0.5 0.25\n")
    (folder / "data.yaml").write_text("train: images/train\nval: images/val\nnc: 3\nnames: [cat, dog]\n")
    lines = "labels/train/1.txt"
    return [
        (Kind.ENTRY, lines, 3), (Kind.ENTRY, lines, 4), (Kind.CLASS_UNKNOWN, lines, 5), (Kind.BOX_PIXELS, lines, 6),
        (Kind.BOX_OUTSIDE, lines, 7), (Kind.BOX_EMPTY, lines, 8), (Kind.BOX_SWAPPED, lines, 9),
        (Kind.ENTRY, lines, 10), (Kind.CLASS_UNKNOWN, lines, 11), (Kind.BOX_OVER, lines, 12),
        (Kind.BOX_DUPLICATE, lines, 14), (Kind.BOX_TINY, lines, 15),
        (Kind.LABEL_MISSING, "images/train/2.png", None), (Kind.ANNOTATION_FILE, "labels/train/3.txt", None),
        (Kind.NAME_REFUSED, "labels/train/4.txt", None), (Kind.LABEL_ORPHAN, "labels/train/orphan.txt", None),
        (Kind.PICTURE_UNREADABLE, "images/train/text.png", None), (Kind.NAME_REFUSED, "images/train/loop", None),
        (Kind.PICTURE_MISSING, "images/train/nothing.png", None), (Kind.CLASS_COUNT, "data.yaml", "nc"),
        (Kind.PICTURES_EMPTY, "data.yaml", None), (Kind.CLASS_RARE, "data.yaml", "class 'dog'")]


def plant_voc(folder: Path) -> list[Planted]:
    def write(name: str, inside: str, before: str = "") -> None:
        (folder / "Annotations").mkdir(parents=True, exist_ok=True)
        (folder / "Annotations" / f"{name}.xml").write_text(f"{before}<annotation>\n{inside}</annotation>\n")

    def an_object(*corners: object, name: str = "cat") -> str:
        tags = ("xmin", "ymin", "xmax", "ymax")
        inner = "".join(f"<{tag}>{value}</{tag}>" for tag, value in zip(tags, corners, strict=True))
        return f"<object><name>{name}</name><bndbox>{inner}</bndbox></object>\n"

    for number in range(1, 11):
        noise(folder / "JPEGImages" / f"{number}.png", number)
        write(str(number), an_object(10, 10, 50, 50) + an_object(20, 20, 60, 60, name="dog"))
    noise(folder / "JPEGImages" / "11.png", 11)
    write("1", an_object(50, 10, 10, 50) + "<object><name>cat</name></object>\n" + an_object(1, "two", 3, 4)
          + an_object(1, 2, 30, 40, name="") + an_object(1, 2, 30, 40, name="ca\nt")
          + an_object(0.1, 0.2, 0.5, 0.75) + an_object(10, 10, 50, 50))
    write("2", "<object>\n<name>cat</bndbox>\n")
    write("3", an_object(1, 1, 30, 30, name="&a;"), '<!DOCTYPE a [<!ENTITY a "cat">]>\n')
    write("4", "<deep>" * 100 + "</deep>" * 100)
    (folder / "Annotations" / "5.xml").write_text("<html></html>")
    write("12", f"<filename>../../12.png</filename>\n{an_object(1, 1, 30, 30)}")
    write("13", an_object(1, 1, 30, 30))
    sheets = "Annotations/"
    return [
        (Kind.BOX_SWAPPED, f"{sheets}1.xml", 2), (Kind.ENTRY, f"{sheets}1.xml", 3), (Kind.ENTRY, f"{sheets}1.xml", 4),
        (Kind.ENTRY, f"{sheets}1.xml", 5), (Kind.NAME_REFUSED, f"{sheets}1.xml", 6),
        (Kind.BOX_FRACTIONS, f"{sheets}1.xml", 8), (Kind.ANNOTATION_FILE, f"{sheets}2.xml", 3),
        (Kind.ANNOTATION_FILE, f"{sheets}3.xml", 1), (Kind.ANNOTATION_FILE, f"{sheets}4.xml", 2),
        (Kind.ANNOTATION_FILE, f"{sheets}5.xml", 1), (Kind.NAME_REFUSED, f"{sheets}12.xml", None),
        (Kind.PICTURE_MISSING, f"{sheets}13.xml", None),
        *((Kind.PICTURE_UNLISTED, f"JPEGImages/{number}.png", None) for number in (2, 3, 4, 5, 11)),
        (Kind.CLASS_RARE, "", "class 'cat'"), (Kind.CLASS_RARE, "", "class 'dog'")]


def plant_parquet(folder: Path) -> list[Planted]:
    truths = []
    for number in range(1, 11):
        noise(folder.parent / f"{number}.png", number)
        truths.append(Truth(folder.parent / f"{number}.png", (WIDTH, HEIGHT),
                            [(0, (5, 5, 40, 40)), (1, (20, 5, 40, 40))]))
    truths[0] = Truth(truths[0].file, (WIDTH, HEIGHT),
                      [(0, (5, 5, 40, 40)), (7, (20, 5, 40, 40)), (0, (5, 5, 0, 40))])
    truths[7].file.write_text("no image")
    truths[8] = Truth(truths[8].file, (WIDTH, -HEIGHT), [])
    parquet("{0}-{1:05d}.parquet")(folder, ["cat", "dog"], {"train": truths, "val": truths[1:3]})
    return [(Kind.CLASS_UNKNOWN, "train-00000.parquet", "object 1"), (Kind.BOX_EMPTY, "train-00000.parquet", 0),
            (Kind.PICTURE_UNREADABLE, "train-00001.parquet", 2), (Kind.ENTRY, "train-00001.parquet", 3),
            (Kind.PICTURE_LEAK, "validation-00000.parquet", 0), (Kind.PICTURE_LEAK, "validation-00001.parquet", 0),
            (Kind.CLASS_RARE, "", "class 'cat'"), (Kind.CLASS_RARE, "", "class 'dog'")]


def plant_shards(folder: Path) -> list[Planted]:
    truths = []
    for number in range(1, 11):
        noise(folder.parent / f"{number}.png", number)
        truths.append(Truth(folder.parent / f"{number}.png", (WIDTH, HEIGHT),
                            [(0, (5, 5, 40, 40)), (1, (20, 5, 40, 40))]))
    truths[0] = Truth(truths[0].file, (WIDTH, HEIGHT), [(0, (5, 5, 40, 40)), (7, (20, 5, 40, 40)), (0, (5, 5, 0, 40))])
    truths[1] = Truth(truths[1].file, (WIDTH, -HEIGHT), [])
    truths[7].file.write_text("no image")
    shards("{}-{:05d}.tar")(folder, ["cat", "dog"], {"train": truths, "val": truths[2:4]})

    def labels(*boxes: Any, **others: Any) -> bytes:
        return json.dumps({"width": WIDTH, "height": HEIGHT, "annotations": boxes, **others}).encode()

    content = truths[8].file.read_bytes()
    with tarfile.open(folder / "train-00001.tar", "a") as shard:
        for name in ("8.png", "10.JPG", "lonely.png", "../up.png", "/root.png", "a\nb.png", "sparse.png"):
            put(shard, name, content, pax_headers={"GNU.sparse.major": "1"} if name == "sparse.png" else {})
        put(shard, "link.png", type=tarfile.SYMTYPE, linkname="/etc/hostname")
        put(shard, "pipe.png", type=tarfile.FIFOTYPE)
        for number, what in enumerate((b"[]", b"{", b"{}", labels(annotations=3), b"[" * 100_000, labels("box"),
                                       labels({"bbox": [1, 2, 3], "category_id": 10}), b" " * (4 * 2**20 + 1))):
            noise(folder.parent / "more.png", 20 + number)
            shard.add(folder.parent / "more.png", f"{20 + number}.png")
            put(shard, f"{20 + number}.json", what)
        put(shard, "gone.json", labels())
        for name in (".hidden.png", "9.mask.png", "9.text.json", "9.txt"):
            put(shard, name, content)
    (folder / "train-00002.tar").write_bytes((folder / "train-00000.tar").read_bytes()[:700])
    (folder / "train-00003.tar.gz").write_bytes(b"\x1f\x8b" + bytes(600))
    first, last = "train-00000.tar", "train-00001.tar"
    return [
        (Kind.CLASS_UNKNOWN, first, "1.png: object 1"), (Kind.BOX_EMPTY, first, "1.png: object 2"),
        (Kind.ENTRY, first, "2.json"), (Kind.PICTURE_UNREADABLE, last, "8.png"),
        (Kind.ID_TWICE, last, "8.png"), (Kind.ID_TWICE, last, "10.JPG"), (Kind.PICTURE_UNLISTED, last, "lonely.png"),
        (Kind.NAME_REFUSED, last, "../up.png"), (Kind.NAME_REFUSED, last, "/root.png"),
        (Kind.NAME_REFUSED, last, "a\nb.png"), (Kind.ENTRY, last, "sparse.png"), (Kind.NAME_REFUSED, last, "link.png"),
        (Kind.ENTRY, last, "pipe.png"), (Kind.ENTRY, last, "20.json"), (Kind.ANNOTATION_FILE, last, "21.json"),
        (Kind.ENTRY, last, "22.json"), (Kind.ENTRY, last, "23.json"), (Kind.ANNOTATION_FILE, last, "24.json"),
        (Kind.ENTRY, last, "25.png: object 0"), (Kind.ENTRY, last, "26.png: object 0"),
        (Kind.ANNOTATION_FILE, last, "27.json"), (Kind.PICTURE_MISSING, last, "gone.json"),
        (Kind.ANNOTATION_FILE, "train-00002.tar", None), (Kind.ANNOTATION_FILE, "train-00003.tar.gz", None),
        (Kind.PICTURE_LEAK, "val-00000.tar", "3.png"), (Kind.PICTURE_LEAK, "val-00001.tar", "4.png"),
        (Kind.CLASS_RARE, "", "class 'cat'"), (Kind.CLASS_RARE, "", "class 'dog'")]
