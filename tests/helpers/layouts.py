"""One data set written as other tools and labelling services would write it."""

import io
import json
import shutil
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

BCCD = Path(__file__).parents[1] / "fixtures" / "bccd-small"
ROBOFLOW = {"train": "train", "val": "valid", "test": "test"}


@dataclass(frozen=True)
class Truth:
    """An image and its objects: class index and x, y, width, height in pixels."""

    file: Path
    size: tuple[int, int]       # (width, height)
    objects: Sequence[tuple[int, tuple[float, float, float, float]]]


Splits = dict[str, list[Truth]]


def bccd() -> tuple[list[str], Splits]:
    """Names of the classes, and of each split the images in the order of their names."""
    names: list[str] = []
    splits: Splits = {}
    for split in ("train", "val", "test"):
        content = json.loads((BCCD / "annotations" / f"{split}.json").read_text())
        names = [category["name"] for category in content["categories"]]
        splits[split] = [
            Truth(BCCD / "images" / image["file_name"], (image["width"], image["height"]),
                  [(box["category_id"] - 1, tuple(box["bbox"])) for box in content["annotations"]
                   if box["image_id"] == image["id"]])
            for image in content["images"]]
    return names, splits


def place(image: Truth, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(image.file, folder / image.file.name)


def coco(annotations: str, images: str, called: dict[str, str]) -> Callable[[Path, list[str], Splits], None]:
    """COCO files and images at these places, where {} is what the split is called."""
    def write(folder: Path, names: list[str], splits: Splits) -> None:
        for split, truths in splits.items():
            content: dict[str, Any] = {"categories": [{"id": 10 + i, "name": name} for i, name in enumerate(names)],
                                       "images": [], "annotations": []}
            for number, truth in enumerate(truths):
                place(truth, folder / images.format(called[split]))
                content["images"].append({"id": number, "file_name": truth.file.name, "width": truth.size[0],
                                          "height": truth.size[1]})
                content["annotations"] += [{"id": len(content["annotations"]) + row, "image_id": number, "bbox": box,
                                            "category_id": 10 + label}
                                           for row, (label, box) in enumerate(truth.objects)]
            file = folder / annotations.format(called[split])
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(content))
    return write


def yolo(images: str, called: dict[str, str], settings: Callable[..., None] | None) -> Callable[..., None]:
    """YOLO images there, and labels where `images` becomes `labels`; `settings` writes what names the classes."""
    def write(folder: Path, names: list[str], splits: Splits) -> None:
        for split, truths in splits.items():
            inside = images.format(called[split])
            labels = folder / inside.replace("images", "labels")
            labels.mkdir(parents=True, exist_ok=True)
            for truth in truths:
                place(truth, folder / inside)
                (labels / f"{truth.file.stem}.txt").write_text("".join(
                    f"{label} {(x + w / 2) / truth.size[0]} {(y + h / 2) / truth.size[1]} {w / truth.size[0]} "
                    f"{h / truth.size[1]}\n" for label, (x, y, w, h) in truth.objects))
        if settings:
            settings(folder, names, {split: images.format(called[split]) for split in splits})
    return write


def data_yaml(root: str = "", before: str = "", as_list: bool = False) -> Callable[..., None]:
    """data.yaml with the names as a mapping or a list, and something before the paths."""
    def write(folder: Path, names: list[str], places: dict[str, str]) -> None:
        content: dict[str, Any] = {split: before + inside for split, inside in places.items()}
        content["names"] = names if as_list else dict(enumerate(names))
        content["nc"] = len(names)
        (folder / "data.yaml").write_text(yaml.safe_dump({"path": root, **content} if root else content))
    return write


def image_lists(folder: Path, names: list[str], places: dict[str, str]) -> None:
    """data.yaml whose splits are text files that name the images."""
    for split, inside in places.items():
        listed = sorted((folder / inside).iterdir())
        (folder / f"{split}.txt").write_text("".join(f"./{inside}/{path.name}\n" for path in listed))
    data_yaml()(folder, names, {split: f"{split}.txt" for split in places})


def classes_txt(folder: Path, names: list[str], _: dict[str, str]) -> None:
    (folder / "classes.txt").write_text("\n".join(names) + "\n")


def darknet(images: str, before: str, called: dict[str, str]) -> Callable[..., None]:
    """CVAT's "YOLO 1.1": images and labels side by side, listed in {}.txt, all named in obj.data."""
    def write(folder: Path, names: list[str], splits: Splits) -> None:
        yolo(images, called, None)(folder, names, splits)
        settings = [f"classes = {len(names)}", f"names = {before}obj.names", "backup = backup/"]
        for split in splits:
            inside = images.format(called[split])
            for label in (folder / inside.replace("images", "labels")).glob("*.txt"):
                label.rename(folder / inside / label.name)
            listed = sorted(path.name for path in (folder / inside).glob("*.jpg"))
            (folder / f"{called[split]}.txt").write_text("".join(f"{before}{inside}/{name}\n" for name in listed))
            settings.append(f"{called[split]} = {before}{called[split]}.txt")
        (folder / "obj.data").write_text("\n".join(settings) + "\n")
        (folder / "obj.names").write_text("\n".join(names) + "\n")
    return write


def voc(sheets: str, images: str, called: dict[str, str], lists: bool = False) -> Callable[..., None]:
    """VOC's XML and images there; with `lists` of what belongs to a split."""
    def write(folder: Path, names: list[str], splits: Splits) -> None:
        for split, truths in splits.items():
            (folder / sheets.format(called[split])).mkdir(parents=True, exist_ok=True)
            for truth in truths:
                place(truth, folder / images.format(called[split]))
                file = folder / sheets.format(called[split]) / f"{truth.file.stem}.xml"
                file.write_text(sheet(truth, names))
            if lists:
                (folder / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
                (folder / "ImageSets" / "Main" / f"{split}.txt").write_text(
                    "".join(f"{truth.file.stem}\n" for truth in truths))
    return write


def sheet(truth: Truth, names: list[str]) -> str:
    objects = "".join(
        f"\t<object>\n\t\t<name>{names[label]}</name>\n\t\t<difficult>0</difficult>\n\t\t<bndbox><xmin>{x}</xmin>"
        f"<ymin>{y}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox>\n\t</object>\n"
        for label, (x, y, w, h) in truth.objects)
    return (f"<annotation>\n\t<filename>{truth.file.name}</filename>\n\t<size><width>{truth.size[0]}</width>"
            f"<height>{truth.size[1]}</height><depth>3</depth></size>\n{objects}</annotation>\n")


def parquet(files: str, as_structs: bool = False, with_sizes: bool = True) -> Callable[..., None]:
    """Hugging Face's files, {} for the split; objects as a structure of lists or as a list of structures."""
    def write(folder: Path, names: list[str], splits: Splits) -> None:
        import pyarrow
        import pyarrow.parquet

        label = {"names": names, "_type": "ClassLabel"}
        box = pyarrow.list_(pyarrow.float32(), 4)
        if as_structs:
            kind = pyarrow.list_(pyarrow.struct([("bbox", box), ("category", pyarrow.int64())]))
            feature: Any = {"feature": {"bbox": {"_type": "List"}, "category": label}, "_type": "List"}
        else:
            kind = pyarrow.struct([("bbox", pyarrow.list_(box)), ("category", pyarrow.list_(pyarrow.int64()))])
            feature = {"bbox": {"_type": "List"}, "category": {"feature": label, "_type": "List"}}
        fields = [("image", pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])),
                  ("objects", kind)]
        fields += [("width", pyarrow.int32()), ("height", pyarrow.int32())] if with_sizes else []
        features = {"image": {"_type": "Image"}, "objects": feature}
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        schema = pyarrow.schema(fields, metadata=metadata)
        for split, truths in splits.items():
            called = "validation" if split == "val" else split
            half = len(truths) // 2
            for shard, part in enumerate((truths[:half], truths[half:])):
                rows = [{"image": {"bytes": truth.file.read_bytes(), "path": truth.file.name},
                         "objects": [{"bbox": box, "category": label} for label, box in truth.objects] if as_structs
                         else {"bbox": [box for _, box in truth.objects], "category": [n for n, _ in truth.objects]},
                         "width": truth.size[0], "height": truth.size[1]} for truth in part]
                file = folder / files.format(called, shard)
                file.parent.mkdir(parents=True, exist_ok=True)
                pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), file, row_group_size=5)
    return write


def shards(files: str, classes: str = "classes.json", with_sizes: bool = True) -> Callable[..., None]:
    """WebDataset's archives, {} for the split and a number."""
    def write(folder: Path, names: list[str], splits: Splits) -> None:
        for split, truths in splits.items():
            half = len(truths) // 2
            for number, part in enumerate((truths[:half], truths[half:])):
                file = folder / files.format(split, number)
                file.parent.mkdir(parents=True, exist_ok=True)
                with tarfile.open(file, "w") as shard:
                    for truth in part:
                        sizes = {"width": truth.size[0], "height": truth.size[1]} if with_sizes else {}
                        boxes = [{"bbox": box, "category_id": 10 + label} for label, box in truth.objects]
                        shard.add(truth.file, truth.file.name)
                        put(shard, f"{truth.file.stem}.json", json.dumps({**sizes, "annotations": boxes}).encode())
        (folder / classes).write_text(json.dumps([{"id": 10 + i, "name": name} for i, name in enumerate(names)]))
    return write


def put(shard: tarfile.TarFile, name: str, content: bytes = b"", **header: Any) -> None:
    """Add a member; `header` replaces parts of what is said of it."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in header.items():
        setattr(member, key, value)
    shard.addfile(member, io.BytesIO(content))


def labelme(called: dict[str, str]) -> Callable[..., None]:
    """LabelMe's JSON beside each image: rectangles, whose corners come in any order, and polygons."""
    def write(folder: Path, names: list[str], splits: Splits) -> None:
        for split, truths in splits.items():
            for truth in truths:
                place(truth, folder / called[split])
                shapes = [{"label": names[label], "group_id": None, "flags": {}, **(
                    {"shape_type": "rectangle", "points": [[x + w, y + h], [x, y]]} if number % 2 else
                    {"shape_type": "polygon", "points": [[x, y + h / 2], [x + w / 2, y], [x + w, y + h], [x + w, y]]})}
                    for number, (label, (x, y, w, h)) in enumerate(truth.objects)]
                content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imageData": None,
                           "imagePath": f"..\\images\\{truth.file.name}", "imageWidth": truth.size[0],
                           "imageHeight": truth.size[1]}
                (folder / called[split] / f"{truth.file.stem}.json").write_text(json.dumps(content))
    return write


def cvat(called: dict[str, str], images: str = "images") -> Callable[..., None]:
    """CVAT for images 1.1: one file for each split."""
    def write(folder: Path, names: list[str], splits: Splits) -> None:
        labels = "".join(f"<label><name>{name}</name></label>" for name in names)
        for split, truths in splits.items():
            inside = folder / called[split]
            entries = []
            for number, truth in enumerate(truths):
                place(truth, inside / images)
                shapes = [f'<box label="{names[label]}" occluded="0" xtl="{x}" ytl="{y}" xbr="{x + w}" ybr="{y + h}"/>'
                          if index % 2 else
                          f'<polygon label="{names[label]}" points="{x},{y};{x + w},{y};{x + w},{y + h}"></polygon>'
                          for index, (label, (x, y, w, h)) in enumerate(truth.objects)]
                entries.append(f'<image id="{number}" name="{truth.file.name}" width="{truth.size[0]}" '
                               f'height="{truth.size[1]}">{"".join(shapes)}<tag label="{names[0]}"/></image>')
            (inside / "annotations.xml").write_text(
                f"<annotations><version>1.1</version><meta><task><labels>{labels}</labels></task></meta>"
                f"{''.join(entries)}</annotations>")
    return write


def image_folder(called: dict[str, str], as_columns: bool = True) -> Callable[..., None]:
    """Hugging Face's image folder; the classes by name."""
    def write(folder: Path, names: list[str], splits: Splits) -> None:
        for split, truths in splits.items():
            lines = []
            for truth in truths:
                place(truth, folder / called[split])
                boxes, labels = [list(box) for _, box in truth.objects], [names[label] for label, _ in truth.objects]
                objects: Any = ({"bbox": boxes, "categories": labels} if as_columns else
                                [{"bbox": box, "category": label} for box, label in zip(boxes, labels, strict=True)])
                lines.append(json.dumps({"file_name": truth.file.name, "objects": objects}))
            (folder / called[split] / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return write


SAME = {split: split for split in ROBOFLOW}
WHOLE = dict.fromkeys(ROBOFLOW, "")
YEAR = {split: f"{split}2017" for split in ROBOFLOW}
LAYOUTS: dict[str, Callable[..., None]] = {
    "COCO": coco("annotations/instances_{}.json", "{}", YEAR),
    "COCO, simple": coco("{}.json", "images", SAME),
    "COCO, annotations": coco("annotations/{}.json", "images", SAME),
    "COCO, CVAT": coco("annotations/instances_{}.json", "images/{}", SAME),
    "COCO, Roboflow": coco("{}/_annotations.coco.json", "{}", ROBOFLOW),
    "YOLO": yolo("images/{}", SAME, data_yaml("../datasets/cells")),
    "YOLO, elsewhere": yolo("images/{}", SAME, data_yaml("/home/somebody/datasets/cells")),
    "YOLO, Windows": yolo("images/{}", SAME, data_yaml(before="C:\\Users\\somebody\\cells\\")),
    "YOLO, Roboflow": yolo("{}/images", ROBOFLOW, data_yaml(before="../", as_list=True)),
    "YOLO, lists": yolo("images/{}", SAME, image_lists),
    "YOLO, folders": yolo("images/{}", SAME, classes_txt),
    "YOLO, side by side": yolo("{}", SAME, data_yaml()),
    "YOLO, CVAT": darknet("obj_{}_data", "data/", ROBOFLOW),
    "YOLO, CVAT, folders": darknet("obj_{}_data/images", "", ROBOFLOW),
    "VOC": voc("Annotations", "JPEGImages", SAME, lists=True),
    "VOC, Roboflow": voc("{}", "{}", ROBOFLOW),
    "VOC, split folders": voc("{}/annotations", "{}/images", SAME),
    "parquet": parquet("data/{}-{:05d}-of-00002.parquet"),
    "parquet, structs": parquet("default/{}/{:04d}.parquet", as_structs=True, with_sizes=False),
    "WebDataset": shards("{}-{:06d}.tar"),
    "WebDataset, folders": shards("{}/{:03d}.tar", "categories.json", with_sizes=False),
    "LabelMe": labelme(SAME),
    "CVAT": cvat(ROBOFLOW),
    "imagefolder": image_folder(SAME),
    "imagefolder, structs": image_folder({**SAME, "val": "validation"}, as_columns=False),
}
UNSPLIT: dict[str, Callable[..., None]] = {
    "COCO, Roboflow": coco("_annotations.coco.json", ".", SAME),
    "COCO, CVAT": coco("annotations/instances_default.json", "images", SAME),
    "COCO, FiftyOne": coco("labels.json", "data", SAME),
    "COCO, Label Studio": coco("result.json", "images", SAME),
    "YOLO, Label Studio": yolo("images", SAME, classes_txt),
    "YOLO, labelImg": yolo(".", SAME, classes_txt),
    "YOLO, CVAT": darknet("obj_{}_data", "data/", SAME),
    "VOC": voc("Annotations", "JPEGImages", SAME),
    "VOC, labelImg": voc(".", ".", SAME),
    "parquet": parquet("{1:04d}.parquet"),
    "WebDataset": shards("cells-{1:06d}.tar"),
    "LabelMe": labelme(WHOLE),
}
