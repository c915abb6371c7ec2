"""Data sets with faults planted in them. Each function writes one and says where which fault is."""

import json
import struct
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from deformable_detr.datasets.kinds import Fault
from deformable_detr.images import EXIF_ORIENTATION
from helpers.layouts import Truth, parquet, put, shards
from helpers.synthetic import box, image_entry

WIDTH, HEIGHT = 96, 72
NUM_QUERIES = 20

Planted = tuple[Fault, str, int | str | None]    # the file's end, and a line or an entry


def noise(file: Path, seed: int, change: int = 0, **options: Any) -> None:
    """An image like no other: blocks of random grey, the first `change` of them different."""
    file.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(40, 215, (9, 12), dtype=np.uint8)
    blocks.ravel()[:change] += 20
    pixels = np.kron(blocks, np.ones((8, 8), np.uint8))
    PIL.Image.fromarray(pixels).convert("RGB").save(file, **options)


def whole_data_sets(folder: Path) -> dict[Fault, Path]:
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
    many = [box(number, 1, 1, [number % 70, number // 70, 20, 20]) for number in range(101)]
    marked = [box(1, 1, 1, [4, 4, 20, 20], ignore=1), box(2, 1, 1, [4, 4, 20, 20], area=-1)]
    frames = coco("frames", [box(1, 1, 1, [4, 4, 20, 20])])
    pages = [PIL.Image.fromarray(np.full((HEIGHT, WIDTH), value, np.uint8)) for value in (0, 99)]
    pages[0].save(frames / "images" / "1.png", "TIFF", save_all=True, append_images=pages[1:])
    dark = coco("dark", [box(1, 1, 1, [4, 4, 20, 20])])
    PIL.Image.fromarray(np.full((HEIGHT, WIDTH), 255, np.uint16)).save(dark / "images" / "1.png")
    splits = {name: coco(name, [box(1, 1, 1, [4, 4, 20, 20]), box(2, 1, 2, [4, 4, 20, 20])])
              for name in ("unlearned", "order", "sides")}
    for name, train, val in (("unlearned", "ab", "ac"), ("order", "ab", "ba"), ("sides", ["left turn", "b"], "ab")):
        for split, names in (("train", train), ("val", val)):
            content = json.loads((splits[name] / f"{split}.json").read_text())
            content["categories"] = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
            (splits[name] / f"{split}.json").write_text(json.dumps(content))
    deep = coco("deep", [])
    (deep / "train.json").write_text("[" * 100_000)
    unnamed = folder / "unnamed" / "annotations" / "instances_some.json"
    unnamed.parent.mkdir(parents=True)
    unnamed.write_text("{}")
    return {Fault.SPLIT_UNKNOWN: folder / "unnamed",
            Fault.BOX_FRACTIONS: coco("fractions", fractions), Fault.BOX_CORNERS: coco("corners", corners),
            Fault.OBJECTS_UNCOUNTED: coco("many", many), Fault.OBJECT_IGNORED: coco("ignored", marked),
            Fault.OBJECT_AREA: coco("area", marked), Fault.PICTURE_FRAMES: frames, Fault.PICTURE_DARK: dark,
            Fault.CLASSES_UNLEARNED: splits["unlearned"], Fault.CLASSES_ORDER: splits["order"],
            Fault.CLASS_SIDES: splits["sides"],
            Fault.NO_OBJECTS: coco("no objects", []), Fault.NO_IMAGES: coco("no images", [], []),
            Fault.NAMES_MISSING: nameless, Fault.OTHER_ANNOTATIONS: both, Fault.ANNOTATION_FILE: deep}


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
        (Fault.ENTRY, here, "image 115"), (Fault.ENTRY, here, f"images[{len(listed) - 2}]"),
        (Fault.ENTRY, here, "annotation 501"), (Fault.ENTRY, here, "annotation 516"),
        (Fault.ENTRY, here, f"annotations[{len(boxes) - 1}]"),
        (Fault.ID_TWICE, here, "image id 5"), (Fault.ID_TWICE, here, "category name 'bird'"),
        (Fault.ANNOTATION_ID_TWICE, here, "annotation 514"), (Fault.CLASS_UNKNOWN, here, "annotation 502"),
        (Fault.PICTURE_UNKNOWN, here, "annotation 503"), (Fault.PICTURE_MISSING, here, "image 101"),
        (Fault.NAME_REFUSED, here, "image 103"), (Fault.NAME_REFUSED, here, "image 104"),
        (Fault.NAME_REFUSED, here, "image 105"), (Fault.PICTURE_UNREADABLE, here, "image 106"),
        (Fault.PICTURE_UNREADABLE, here, "image 107"), (Fault.PICTURE_UNREADABLE, here, "image 108"),
        (Fault.PICTURE_TRUNCATED, here, "image 109"), (Fault.PICTURE_ROTATED, here, "image 110"),
        (Fault.PICTURE_MISLABELLED, here, "image 111"), (Fault.PICTURE_DUPLICATE, here, "image 112"),
        (Fault.PICTURE_SIMILAR, here, "image 113"), (Fault.PICTURE_TWICE, here, "image 11"),
        (Fault.PICTURE_TWICE, here, "image 114"), (Fault.PICTURE_SIZE, here, "image 116"),
        (Fault.PICTURE_UNLISTED, "images/unlisted.png", None),
        (Fault.PICTURE_LEAK, there, "image 21"), (Fault.PICTURE_SIMILAR_LEAK, there, "image 22"),
        (Fault.BOX_FIRST_PIXEL, here, "annotation 504"), (Fault.BOX_EMPTY, here, "annotation 505"),
        (Fault.BOX_SWAPPED, here, "annotation 506"), (Fault.BOX_OUTSIDE, here, "annotation 507"),
        (Fault.BOX_OVER, here, "annotation 508"), (Fault.BOX_DUPLICATE, here, "annotation 510"),
        (Fault.BOX_TWO_CLASSES, here, "annotation 511"), (Fault.BOX_TINY, here, "annotation 504"),
        (Fault.BOX_TINY, here, "annotation 513"),
        (Fault.OBJECTS_MANY, here, "image 9"), (Fault.CLASS_ABSENT, here, "class 'unseen'"),
        (Fault.CLASS_RARE, here, "class 'Cell'"), (Fault.CLASS_RARE, here, "class 'bird'"),
        (Fault.CLASS_RARE, here, "class 'dog'"), (Fault.PICTURES_EMPTY, here, None),
        (Fault.CLASS_IMBALANCE, here, "class 'Cell'"), (Fault.CLASS_IMBALANCE, here, "class 'bird'"),
        (Fault.CLASS_ALIKE, here, "class 'cell'"), (Fault.IDS_SPARSE, here, None), (Fault.CLASSES_DIFFER, there, None)]


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
    (folder / "images" / "train" / "phone.heic").touch()
    (folder / "images" / "val").rename(folder.parent / "elsewhere")
    (folder / "images" / "val").symlink_to(folder.parent / "elsewhere")
    (folder / "images" / "train" / "loop").symlink_to(folder / "images")
    (folder / "images" / "train" / "nothing.png").symlink_to("gone.png")
    (folder / "labels" / "val" / "11.txt").write_text("0 0.5 0.5 0.5 0.5\n1 0.25 0.25 0.5 0.25\n")
    (folder / "data.yaml").write_text("path: /cells\ntrain: images/train\nval: images/val\nnc: 3\nnames: [cat, dog]\n")
    lines = "labels/train/1.txt"
    return [
        (Fault.ENTRY, lines, 3), (Fault.ENTRY, lines, 4), (Fault.CLASS_UNKNOWN, lines, 5), (Fault.BOX_PIXELS, lines, 6),
        (Fault.BOX_OUTSIDE, lines, 7), (Fault.BOX_EMPTY, lines, 8), (Fault.BOX_SWAPPED, lines, 9),
        (Fault.ENTRY, lines, 10), (Fault.CLASS_UNKNOWN, lines, 11), (Fault.BOX_OVER, lines, 12),
        (Fault.BOX_DUPLICATE, lines, 14), (Fault.BOX_TINY, lines, 15),
        (Fault.LABEL_MISSING, "images/train/2.png", None), (Fault.ANNOTATION_FILE, "labels/train/3.txt", None),
        (Fault.NAME_REFUSED, "labels/train/4.txt", None), (Fault.LABEL_ORPHAN, "labels/train/orphan.txt", None),
        (Fault.PICTURE_UNREADABLE, "images/train/text.png", None), (Fault.NAME_REFUSED, "images/train/loop", None),
        (Fault.PICTURE_MISSING, "images/train/nothing.png", None), (Fault.CLASS_COUNT, "data.yaml", "nc"),
        (Fault.PICTURES_EMPTY, "data.yaml", None), (Fault.CLASS_RARE, "data.yaml", "class 'dog'"),
        (Fault.PICTURE_UNREAD, "images/train/phone.heic", None), (Fault.FOLDER_LINKED, "images/val", None),
        (Fault.PATH_ELSEWHERE, "data.yaml", "train"), (Fault.PATH_ELSEWHERE, "data.yaml", "val")]


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
        (Fault.BOX_SWAPPED, f"{sheets}1.xml", 2), (Fault.ENTRY, f"{sheets}1.xml", 3),
        (Fault.ENTRY, f"{sheets}1.xml", 4), (Fault.ENTRY, f"{sheets}1.xml", 5),
        (Fault.NAME_REFUSED, f"{sheets}1.xml", 6),
        (Fault.BOX_FRACTIONS, f"{sheets}1.xml", 8), (Fault.ANNOTATION_FILE, f"{sheets}2.xml", 3),
        (Fault.ANNOTATION_FILE, f"{sheets}3.xml", 1), (Fault.ANNOTATION_FILE, f"{sheets}4.xml", 2),
        (Fault.ANNOTATION_FILE, f"{sheets}5.xml", 1), (Fault.NAME_REFUSED, f"{sheets}12.xml", None),
        (Fault.PICTURE_MISSING, f"{sheets}13.xml", None),
        *((Fault.PICTURE_UNLISTED, f"JPEGImages/{number}.png", None) for number in (2, 3, 4, 5, 11)),
        (Fault.CLASS_RARE, "", "class 'cat'"), (Fault.CLASS_RARE, "", "class 'dog'")]


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
    return [(Fault.CLASS_UNKNOWN, "train-00000.parquet", "object 1"), (Fault.BOX_EMPTY, "train-00000.parquet", 0),
            (Fault.PICTURE_UNREADABLE, "train-00001.parquet", 2), (Fault.ENTRY, "train-00001.parquet", 3),
            (Fault.PICTURE_LEAK, "validation-00000.parquet", 0), (Fault.PICTURE_LEAK, "validation-00001.parquet", 0),
            (Fault.CLASS_RARE, "", "class 'cat'"), (Fault.CLASS_RARE, "", "class 'dog'")]


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
        (Fault.CLASS_UNKNOWN, first, "1.png: object 1"), (Fault.BOX_EMPTY, first, "1.png: object 2"),
        (Fault.ENTRY, first, "2.json"), (Fault.PICTURE_UNREADABLE, last, "8.png"),
        (Fault.ID_TWICE, last, "8.png"), (Fault.ID_TWICE, last, "10.JPG"), (Fault.PICTURE_UNLISTED, last, "lonely.png"),
        (Fault.NAME_REFUSED, last, "../up.png"), (Fault.NAME_REFUSED, last, "/root.png"),
        (Fault.NAME_REFUSED, last, "a\nb.png"), (Fault.ENTRY, last, "sparse.png"),
        (Fault.NAME_REFUSED, last, "link.png"),
        (Fault.ENTRY, last, "pipe.png"), (Fault.ENTRY, last, "20.json"), (Fault.ANNOTATION_FILE, last, "21.json"),
        (Fault.ENTRY, last, "22.json"), (Fault.ENTRY, last, "23.json"), (Fault.ANNOTATION_FILE, last, "24.json"),
        (Fault.ENTRY, last, "25.png: object 0"), (Fault.ENTRY, last, "26.png: object 0"),
        (Fault.ANNOTATION_FILE, last, "27.json"), (Fault.PICTURE_MISSING, last, "gone.json"),
        (Fault.ANNOTATION_FILE, "train-00002.tar", None), (Fault.ANNOTATION_FILE, "train-00003.tar.gz", None),
        (Fault.PICTURE_LEAK, "val-00000.tar", "3.png"), (Fault.PICTURE_LEAK, "val-00001.tar", "4.png"),
        (Fault.CLASS_RARE, "", "class 'cat'"), (Fault.CLASS_RARE, "", "class 'dog'")]
