"""Weights by name and from the Hub, of which a stand-in runs on this machine."""

import json
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
import torch

from deformable_detr import Detector
from deformable_detr.cli import main
from deformable_detr.weights import ModelInfo, WeightsError, read_any, save, save_foreign
from deformable_detr.weights.names import NAMED, named
from deformable_detr.weights.sources import check_exists, find_weights
from helpers.hub_server import COMMIT, Hub, running
from helpers.models import small_model

INFO = ModelInfo(("cat", "dog", "eel"), (1, 2, 5))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    with running(Hub()) as server:
        send_requests_to(server.url, monkeypatch)
        yield server


def send_requests_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT does for a new process."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE",
                        url + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture
def native(tmp_path: Path) -> bytes:
    save(tmp_path / "native.safetensors", small_model(num_classes=3), INFO)
    return (tmp_path / "native.safetensors").read_bytes()


def transformers_folder(hub: Hub, folder: Path, repository: str) -> None:
    """A folder of transformers with a ResNet, put on the Hub."""
    model = small_model("two-stage", backbone="resnet18", num_classes=3)
    save_foreign(folder, model, INFO, "huggingface")
    for file in folder.iterdir():
        hub.put(repository, file.name, file.read_bytes())


def test_ours_is_fetched_once_and_served_from_the_cache(hub: Hub, native: bytes) -> None:
    hub.put("someone/cats", "model.safetensors", native)
    assert Detector("hf:someone/cats").names == INFO.names
    downloads = [request for request in hub.asked if request.startswith("GET")]
    assert downloads == ["GET someone/cats/model.safetensors"]
    hub.asked.clear()
    assert Detector("hf:someone/cats").names == INFO.names
    assert not [request for request in hub.asked if request.startswith("GET")]


def test_a_folder_of_transformers_is_fetched_and_read(hub: Hub, tmp_path: Path) -> None:
    transformers_folder(hub, tmp_path / "model", "someone/detr")
    hub.put("someone/detr", "pytorch_model.bin", b"not needed")
    model, info = read_any("hf:someone/detr")
    expected, _ = read_any(tmp_path / "model")
    assert info.dialect == "huggingface"
    assert info.names == INFO.names
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in expected.state_dict().items())
    assert not any("pytorch_model.bin" in request for request in hub.asked)


def test_a_short_name_is_its_repository(hub: Hub, tmp_path: Path) -> None:
    entry = named("coco")
    assert entry is not None
    assert entry is NAMED["deformable-detr-two-stage"]
    assert entry.ap == max(each.ap for each in NAMED.values())
    transformers_folder(hub, tmp_path / "model", entry.repository)
    assert Detector("coco").names == INFO.names


def test_a_path_comes_before_a_short_name(hub: Hub, native: bytes, tmp_path: Path,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("coco").write_bytes(native)
    assert Detector("coco").names == INFO.names
    assert not hub.asked


def test_a_revision_is_another_model(hub: Hub, native: bytes, tmp_path: Path) -> None:
    hub.put("someone/cats", "model.safetensors", b"damaged")
    hub.put("someone/cats", "model.safetensors", native, revision="v1.0")
    assert Detector("hf:someone/cats@v1.0").names == INFO.names
    with pytest.raises(WeightsError, match="not a safetensors file"):
        Detector("hf:someone/cats")
    with pytest.raises(WeightsError, match=r"^hf:someone/cats@v9: cannot be fetched: no such revision$"):
        Detector("hf:someone/cats@v9")


def test_an_interrupted_download_is_continued(hub: Hub, native: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 2**14)
    hub.put("someone/cats", "model.safetensors", native)
    hub.cut_after = len(native) // 2
    assert Detector("hf:someone/cats").names == INFO.names
    first, second = (request for request in hub.asked if request.startswith("GET"))
    assert first == "GET someone/cats/model.safetensors"
    assert second.startswith(f"{first} from ")
    assert int(second.split()[-1]) > len(native) // 3


def test_without_a_network_the_cache_serves(hub: Hub, native: bytes, tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    hub.put("someone/cats", "model.safetensors", native)
    Detector("hf:someone/cats")
    send_requests_to("http://127.0.0.1:9", monkeypatch)    # where nothing listens
    assert Detector("hf:someone/cats").names == INFO.names
    with pytest.raises(WeightsError, match=r"^hf:someone/dogs: the Hub cannot be reached \(.+\), and nothing of it is "
                                           r"in the cache: fetch it once with a network, or give the path of a file$"):
        Detector("hf:someone/dogs")


def test_what_is_not_there_is_one_line(hub: Hub, native: bytes) -> None:
    hub.put("someone/cats", "README.md", b"nothing else")
    with pytest.raises(WeightsError, match=r"^hf:someone/cats: expected model.safetensors or pytorch_model.bin, found"):
        Detector("hf:someone/cats")
    with pytest.raises(WeightsError, match=r"^hf:no/body: cannot be fetched: no such repository"):
        Detector("hf:no/body")


def test_another_content_than_the_hub_says_is_refused_and_removed(hub: Hub, native: bytes, tmp_path: Path) -> None:
    hub.put("someone/cats", "model.safetensors", native)
    hub.wrong_hash = True
    with pytest.raises(WeightsError, match=r"model.safetensors is damaged: expected the SHA-256 [0-9a-f]{64}, got"):
        Detector("hf:someone/cats")
    hub.wrong_hash = False
    assert Detector("hf:someone/cats").names == INFO.names


def test_a_pinned_hash_is_checked(hub: Hub, native: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.put("someone/cats", "model.safetensors", native)
    entry = NAMED["detr"]._replace(repository="someone/cats", revision=COMMIT, sha256="0" * 64)
    monkeypatch.setitem(NAMED, "detr", entry)
    with pytest.raises(WeightsError, match=f"expected the SHA-256 {'0' * 64}"):
        Detector("detr")


@pytest.mark.parametrize("address", ["hf:", "hf:cats", "hf:../cats", "hf:a/b/c", "hf:a/../b", "hf:a/b@../../x",
                                     "hf:a/b@", "hf:a/b?x=1", "hf:/etc/passwd", "hf:a/b\n", "hf:a/..", "hf:é/b"])
def test_addresses_that_are_none_are_refused_unasked(hub: Hub, address: str) -> None:
    with pytest.raises(WeightsError, match='expected "owner/name"'):
        find_weights(address)
    assert not hub.asked


def test_parts_must_lie_in_the_repository(hub: Hub) -> None:
    hub.put("someone/cats", "model.safetensors.index.json",
            json.dumps({"weight_map": {"a": "../../other/model.safetensors"}}).encode())
    with pytest.raises(WeightsError, match=r"names of files in this folder, got '\.\./\.\./other"):
        find_weights("hf:someone/cats")


def test_a_misspelt_name_gets_a_suggestion() -> None:
    with pytest.raises(WeightsError, match=r"got 'cocco'; did you mean 'coco'\?"):
        check_exists("cocco")


def test_the_list(hub: Hub, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    transformers_folder(hub, tmp_path / "model", NAMED["detr"].repository)
    find_weights("detr")
    assert main(["weights", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["name"]: row["cached"] for row in rows} == {name: name == "detr" for name in NAMED}
    assert main(["weights"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) < 100
    assert "deformable-detr-two-stage, coco    AP 46.9  165 MB" in lines
    assert [line.split()[0] for line in lines if "in the cache" in line] == ["detr"]


def test_convert_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = small_model("two-stage", backbone="resnet18", num_classes=3, num_heads=8, num_queries=300, dropout=0.1)
    save(tmp_path / "ours.safetensors", model, INFO)
    for to, name in (("published", "a.pth"), ("huggingface", "folder"), ("detrex", "b.safetensors")):
        assert main(["convert", str(tmp_path / "ours.safetensors"), str(tmp_path / name), "--to", to]) == 0
        assert main(["convert", str(tmp_path / name), str(tmp_path / f"{name}.back")]) == 0
        returned, _ = read_any(tmp_path / f"{name}.back")
        assert returned.config == model.config
        assert all(torch.equal(value, returned.state_dict()[key]) for key, value in model.state_dict().items())
    assert main(["convert", str(tmp_path / "ours.safetensors"), str(tmp_path / "a.pth"), "--to", "published"]) == 2
    assert "exists already" in capsys.readouterr().err
