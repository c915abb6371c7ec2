"""WebDataset's shards: any archive that tools write, no archive that somebody forged, and each image read once."""

import gzip
import io
import json
import pickle
import re
import tarfile
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from deformable_detr.datasets.findings import DataError, Findings
from deformable_detr.datasets.folder import DataFolder
from deformable_detr.datasets.formats.tar_members import BLOCK, MAX_EXTENDED, Member, read_members
from deformable_detr.images import ImageError, read_image
from deformable_detr.loading.dataset import DetectionDataset
from deformable_detr.loading.loader import Process, build_loader
from deformable_detr.loading.transforms import eval_transform
from deformable_detr.preprocessing import Preprocessing
from helpers.layouts import LAYOUTS, bccd, place, put

PLAIN = eval_transform(Preprocessing(size=32, max_size=64))
DOCUMENT = Path(__file__).parents[2] / "docs" / "data.md"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound data set, for the tests to spoil."""
    names, splits = bccd()
    LAYOUTS["WebDataset"](tmp_path / "data", names, {split: truths[:6] for split, truths in splits.items()})
    return tmp_path / "data"


def refusal(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        DataFolder(folder).read("train", Findings(strict=True))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def archive(*names: str, form: int = tarfile.PAX_FORMAT, **header: object) -> bytes:
    """An archive whose members hold their own names."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=form) as shard:
        for name in names:
            put(shard, name, name.encode(), **header)
    return content.getvalue()


def members_of(file: Path) -> tuple[list[Member], list[str]]:
    """And what was found to be wrong."""
    findings = Findings()
    return list(read_members(file, findings)), [finding.message for _, _, kept in findings.groups() for finding in kept]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", ["a.jpg", "b" * 90 + "/" + "a" * 99, "c" * 200 + "/a.jpg", "é.jpg", "é/" * 99 + "x"])
def test_members_are_where_tarfile_finds_them(tmp_path: Path, form: int, name: str) -> None:
    names = ["first.jpg", *([name] if form != tarfile.USTAR_FORMAT or len(name) < 150 else []), "last.jpg"]
    (tmp_path / "a.tar").write_bytes(archive(*names, form=form))
    found, faults = members_of(tmp_path / "a.tar")
    assert not faults
    with tarfile.open(tmp_path / "a.tar") as shard:
        assert [(member.name, member.start, member.size) for member in found] == [
            (member.name, member.offset_data, member.size) for member in shard]
    content = (tmp_path / "a.tar").read_bytes()
    assert [content[member.start:member.start + member.size].decode() for member in found] == names


def test_members_of_a_folder_as_tar_packs_it(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.jpg").write_bytes(b"a")
    with tarfile.open(tmp_path / "a.tar", "w") as shard:
        shard.add(tmp_path / "sub", ".")
    found, faults = members_of(tmp_path / "a.tar")
    assert ([member.name for member in found], faults) == (["a.jpg"], [])


def signed(header: bytearray) -> bytes:
    """A header with the checksum that it should have."""
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def with_size(field: bytes) -> bytes:
    """An archive whose first member claims that size."""
    header = bytearray(archive("a.jpg"))
    header[124:136] = field
    return signed(header[:BLOCK]) + bytes(header[BLOCK:])


def extended(content: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    """An archive with such a header before a member's own."""
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, len(content)
    return header.tobuf() + content.ljust(-(-len(content) // BLOCK) * BLOCK, b"\0") + archive("a.jpg")


DAMAGED = {
    "nothing": (b"", "expected an uncompressed tar archive, got something else"),
    "gzip": (gzip.compress(archive("a.jpg")), "got one compressed by gzip"),
    "no archive": (b"an image, perhaps" * 100, "got something else"),
    "cut in a header": (archive("a.jpg")[:100], "got something else"),
    "cut in a member": (archive("a.jpg")[:BLOCK + 3], "'a.jpg' ends at byte 517, the archive at 515"),
    "without an end": (archive("a.jpg")[:2 * BLOCK], "the end of the archive is missing, after byte 1,024"),
    "other bytes": (archive("a.jpg")[:2 * BLOCK] + b"x" * BLOCK, "expected the header of a member at byte 1,024"),
    "beyond": (with_size(b"77777777777\0"), "'a.jpg' ends at byte 8,589,935,103"),
    "far beyond": (with_size(b"\x80" + b"\x7f" * 11), "'a.jpg' ends at byte"),
    "backwards": (with_size(b"\xff" * 11 + b"\0"), "a member's size is no number of bytes"),
    "pax size": (extended(b"11 size=-9\n"), "a member's size is no number of bytes"),
    "pax length": (extended(b"99 path=a\n"), "an extended header is damaged"),
    "pax length 0": (extended(b"0 path=a\n"), "an extended header is damaged"),
    "pax digits": (extended(b"9" * 5000 + b" path=a\n"), "an extended header is damaged"),
    "pax without": (extended(b"\xff\xff\xff"), "an extended header is damaged"),
    "long header": (extended(bytes(MAX_EXTENDED + 1)), "expected a header of at most 65,536 bytes"),
    "long name": (extended(b"a" * 2000, tarfile.GNUTYPE_LONGNAME), "expected a name of at most 1,000 characters"),
    "no name": (extended(b"a\xff.jpg", tarfile.GNUTYPE_LONGNAME), "expected Unicode"),
    "sparse": (archive("a.jpg", type=tarfile.GNUTYPE_SPARSE), "'a.jpg' is sparse, which is not read"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_wrong_with_an_archive(tmp_path: Path, name: str) -> None:
    content, words = DAMAGED[name]
    (tmp_path / "a.tar").write_bytes(content)
    _, faults = members_of(tmp_path / "a.tar")
    assert len(faults) == 1
    assert words in faults[0]


def test_an_archive_of_very_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deformable_detr.datasets.formats.tar_members.MAX_MEMBERS", 3)
    (tmp_path / "a.tar").write_bytes(archive("a", "b", "c", "d"))
    found, faults = members_of(tmp_path / "a.tar")
    assert (len(found), faults) == (3, ["more than 3 members"])


def test_whatever_bytes_are_changed_what_is_found_lies_inside(tmp_path: Path) -> None:
    sound = archive("a.jpg", "b" * 150 + ".jpg", "c.json")
    random = np.random.default_rng(0)
    numbers = []
    for _ in range(200):
        content = bytearray(sound)
        start = BLOCK * int(random.integers(6))
        for position in random.integers(start, start + BLOCK, 3):
            content[position] = random.integers(256)
        # Type and size, where all that can go wrong begins.
        content[start + 124 + random.integers(33)] = random.choice(list(b"017LxgSK\x80\xff"))
        content[start:start + BLOCK] = signed(content[start:start + BLOCK])
        (tmp_path / "a.tar").write_bytes(content)
        found, _ = members_of(tmp_path / "a.tar")
        assert all(0 <= member.start <= member.start + member.size <= len(content) for member in found)
        numbers.append(len(found))
    assert {0, 1, 2, 3} <= set(numbers)


def test_a_shard_that_is_a_link_to_something_else_is_not_read(folder: Path) -> None:
    shard = folder / "train-000000.tar"
    shard.rename(folder.parent / "outside.tar")
    shard.symlink_to(folder.parent / "outside.tar")
    assert "train-000000.tar: expected a file inside" in refusal(folder)


@pytest.mark.parametrize(("content", "words"), [
    ("{}", "classes.json: expected a list of classes, as in [{\"id\": 1"), ("[]", "expected a list of classes"),
    ("[3]", "expected a list of classes"), ("[" * 100_000, "nested too deeply"), ("[", "not valid JSON"),
    ('[{"id": 1, "name": ""}]', "name: expected a text"), ('[{"name": "a"}]', "id: expected a whole number"),
    ('[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]', "expected each id once, got [1, 1]"),
    ('[{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]', "names: expected each once, got 'a' again"),
    (" " * (16 * 2**20 + 1), "more than 16,777,216 bytes")])
def test_classes_that_are_none(folder: Path, content: str, words: str) -> None:
    (folder / "classes.json").write_text(content)
    assert words in refusal(folder)


def test_without_classes_one_is_told_which_file_to_write(folder: Path) -> None:
    (folder / "classes.json").unlink()
    assert 'classes.json: expected a list of classes, as in [{"id": 1, "name": "cat"}], got nothing' in refusal(folder)


def test_archives_that_are_no_shards_are_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("train2017.tar", "backup.tar.gz"):
        (tmp_path / name).write_bytes(archive("train2017/1.jpg", "train2017/2.jpg"))
    with pytest.raises(DataError, match=r"no data set found.*Got backup\.tar\.gz, train2017\.tar$"):
        DataFolder(tmp_path)
    LAYOUTS["COCO"](tmp_path, *bccd())
    DetectionDataset(tmp_path, "val", PLAIN)
    assert not caplog.text


def test_objects_keep_their_areas_and_crowds_stay_out_of_training(tmp_path: Path) -> None:
    _, splits = bccd()
    truth = splits["train"][0]
    objects = [{"bbox": [1, 2, 30, 40], "category_id": 1, "area": 700, "id": "any", "segmentation": [[1, 2, 3, 4]]},
               {"bbox": [5, 5, 50, 50], "category_id": "1", "iscrowd": 1}]
    with tarfile.open(tmp_path / "train.tar", "w") as shard:
        shard.add(truth.file, "folder/a.jpg")
        put(shard, "folder/a.json", json.dumps({"image_id": 9, "objects": objects}).encode())
    (tmp_path / "classes.json").write_text('[{"id": 1, "name": "cell"}]')
    annotations = DataFolder(tmp_path).source.read("train", Findings(strict=True))
    assert annotations.images[0].file_name == "folder/a.jpg"
    assert (annotations.areas.tolist(), annotations.crowd.tolist()) == ([700, 2500], [False, True])
    assert str(annotations.place_of_object(1)) == f"{tmp_path / 'train.tar'}: folder/a.jpg: object 1"


def shard_of(folder: Path, *members: tuple[str, bytes]) -> Path:
    """A data set of one shard and one class."""
    (folder / "classes.json").write_text('[{"id": 1, "name": "cell"}]')
    with tarfile.open(folder / "train.tar", "w") as shard:
        for name, content in members:
            put(shard, name, content)
    return folder


OBJECT = {"bbox": [1, 2, 30, 40], "category_id": 1}


@pytest.mark.parametrize("part", ["a.depth", "a.left.depth"])
def test_parts_of_a_sample_are_no_samples(tmp_path: Path, part: str) -> None:
    image = bccd()[1]["train"][0].file.read_bytes()
    labels = json.dumps({"annotations": [OBJECT]}).encode()
    shard_of(tmp_path, (f"{part}.png", image), (f"{part}.json", labels), ("a.jpg", image), ("a.json", labels),
             ("b.2024.jpg", image), ("b.2024.json", labels))
    findings = Findings(strict=True)
    annotations = DataFolder(tmp_path).source.read("train", findings)
    assert [image.file_name for image in annotations.images] == ["a.jpg", "b.2024.jpg"]
    assert [(kind.name, str(kept[0].place)) for kind, _, kept in findings.groups()] == [
        ("OTHER_ANNOTATIONS", f"{tmp_path / 'train.tar'}: {part}.json")]


@pytest.mark.parametrize("labels", [
    {"annotations": [], "objects": [OBJECT]}, {"annotations": None, "objects": [OBJECT]},
    {"annotations": [OBJECT], "objects": []}, {"objects": [OBJECT]}])
def test_an_empty_list_hides_no_objects(tmp_path: Path, labels: dict) -> None:
    image = bccd()[1]["train"][0].file.read_bytes()
    shard_of(tmp_path, ("a.jpg", image), ("a.json", json.dumps(labels).encode()))
    assert DataFolder(tmp_path).source.read("train", Findings(strict=True)).boxes.tolist() == [[1, 2, 30, 40]]


@pytest.mark.parametrize("names", [("e\u0301.jpg", "\u00e9.json"), ("\u00e9.JPG", "e\u0301.JSON")])
def test_image_and_json_of_a_sample_may_spell_its_name_differently(tmp_path: Path, names: tuple[str, str]) -> None:
    image = bccd()[1]["train"][0].file.read_bytes()
    shard_of(tmp_path, (names[0], image), (names[1], json.dumps({"annotations": [OBJECT]}).encode()))
    assert len(DataFolder(tmp_path).source.read("train", Findings(strict=True)).boxes) == 1


def test_a_store_can_be_sent_to_another_process(folder: Path) -> None:
    annotations = DetectionDataset(folder, "train", PLAIN).annotations
    sent = pickle.loads(pickle.dumps(annotations.store))
    _, splits = bccd()
    assert list(sent.sources(annotations.images)) == [truth.file.read_bytes() for truth in splits["train"][:6]]


def test_a_shard_that_has_become_shorter_is_named_in_one_line(folder: Path) -> None:
    dataset = DetectionDataset(folder, "train", PLAIN)
    shard = folder / "train-000001.tar"
    shard.write_bytes(shard.read_bytes()[:BLOCK])
    last = dataset.annotations.images[5]
    words = f"{re.escape(str(shard))}: {last.file_name}: the file has become shorter"
    with pytest.raises(ImageError, match=f"^{words}$"):
        dataset.annotations.store.source(last)
    with pytest.raises(DataError, match=f"^{words}$"):
        dataset.image(5)
    assert list(dataset.annotations.store.sources([last])) == [b""]


def test_processes_with_workers_read_each_image_once(tmp_path: Path) -> None:
    LAYOUTS["WebDataset"](tmp_path, *bccd())
    dataset = DetectionDataset(tmp_path, "train", PLAIN)
    loaders = [build_loader(dataset, 3, training=True, num_workers=2, process=Process(index, 2)) for index in range(2)]
    for epoch in range(2):
        for loader in loaders:
            loader.batch_sampler.set_epoch(epoch)
        seen = [target.image_id for loader in loaders for target in chain(*(targets for _, targets in loader))]
        assert sorted(seen) == list(range(36))


def test_the_documents_example_writes_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.S)
    (example,) = (block for block in blocks if "tarfile" in block)
    names, splits = bccd()
    truth = splits["train"][0]
    place(truth, tmp_path)
    (tmp_path / "mydata").mkdir()
    monkeypatch.chdir(tmp_path)
    objects = [{"bbox": box, "category_id": label} for label, box in truth.objects]
    labels = {"width": truth.size[0], "height": truth.size[1], "annotations": objects}
    exec(example, {"samples": [("0001", truth.file.name, labels)], "names": names})
    annotations = DataFolder("mydata").source.read("train", Findings(strict=True))
    assert annotations.names == tuple(names)
    assert len(annotations.boxes) == len(objects)
    np.testing.assert_array_equal(annotations.read_image(0), read_image(truth.file))
