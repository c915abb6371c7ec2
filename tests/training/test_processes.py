"""Several processes on one machine, which talk by gloo, and two agents of torchrun that stand for two machines."""

import csv
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import deformable_detr
from deformable_detr.training.run_lock import run_lock
from helpers.programs import run_side_by_side

Ended = subprocess.CompletedProcess[str]
Flags = list[str]

DISTURBED = Path(__file__).parent / "disturbed.py"
PACKAGED_IMAGES = Path(deformable_detr.__file__).parent / "assets" / "pictures"
PACKAGED_TRUTH = Path(__file__).parents[1] / "fixtures" / "aquarium.json"   # of these images


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ranks(count: int, what: str, detail: object, flags: Flags) -> list[Ended]:
    """`disturbed.py` in `count` processes of one training, one thread each."""
    port = free_port()
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1",
              "MASTER_PORT": str(port)}
    environments = [{"RANK": str(rank), "LOCAL_RANK": str(rank), **shared} for rank in range(count)]
    return run_side_by_side([[str(DISTURBED), what, str(detail), *flags]] * count, environments, threads=1)


def alone(what: str, detail: object, flags: Flags) -> Ended:
    return run_side_by_side([[str(DISTURBED), what, str(detail), *flags]], [{}], threads=1)[0]


def assert_ended_well(results: list[Ended]) -> None:
    for ended in results:
        assert ended.returncode == 0, ended.stderr


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def assert_same_course(first: Path, second: Path) -> None:
    """First gradients and losses to 1e-5, later losses to 1e-3."""
    (one, other) = (load_file(path) for path in (first, second))
    torch.testing.assert_close(one["losses"][0], other["losses"][0], rtol=1e-5, atol=0)
    torch.testing.assert_close(one.pop("losses"), other.pop("losses"), rtol=1e-3, atol=0)
    assert one.keys() == other.keys()
    whole = torch.stack([gradient.norm() for gradient in one.values()]).norm()   # some are nothing but rounding
    for name, gradient in one.items():
        assert (gradient - other[name]).norm() <= 1e-5 * whole, name


@pytest.fixture
def flags(train_flags: Callable[..., Flags]) -> Callable[..., Flags]:
    """Of a run without dropout; one image of five holds no object."""
    return lambda *added: train_flags("--dropout", 0, *(() if "--epochs" in added else ("--epochs", 2)), *added)


def test_two_processes_do_what_one_does(flags: Callable[..., Flags], tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert_ended_well([alone("record", tmp_path / "one.st", flags("--out", one, "--batch-size", 4))])
    assert_ended_well(ranks(2, "record", tmp_path / "two.st", flags("--out", two, "--batch-size", 2)))
    assert_same_course(tmp_path / "one.st", tmp_path / "two.st")
    for first, second in zip(rows(one), rows(two), strict=True):
        assert float(first["loss"]) == pytest.approx(float(second["loss"]), rel=1e-3)


@pytest.mark.parametrize("preset", ["detr", "dab-detr"])
def test_each_paper_is_the_same_on_two_processes_and_by_accumulation(preset: str, flags: Callable[..., Flags],
                                                                     tmp_path: Path) -> None:
    """Those whose losses differ from Deformable DETR's; DINO is not among them, as each process draws its noise."""

    def of(name: str, batch_size: int, *more: object) -> Flags:
        return flags("--preset", preset, "--out", tmp_path / name, "--epochs", 1, "--batch-size", batch_size, *more)

    assert_ended_well([alone("record", tmp_path / "one.st", of("one", 4)),
                       alone("record", tmp_path / "parts.st", of("parts", 1, "--total-batch", 4)),
                       *ranks(2, "record", tmp_path / "two.st", of("two", 2))])
    for other in ("parts.st", "two.st"):
        assert_same_course(tmp_path / "one.st", tmp_path / other)


def test_dino_learns_on_two_processes_one_of_which_has_no_object(flags: Callable[..., Flags], tmp_path: Path) -> None:
    results = ranks(2, "record", tmp_path / "two.st", flags("--preset", "dino-4scale", "--out", tmp_path / "two",
                                                            "--batch-size", 1, "--denoising-queries", 10))
    assert_ended_well(results)
    assert load_file(tmp_path / "two.st")["losses"].isfinite().all()


def test_accumulation_does_what_a_large_batch_does(flags: Callable[..., Flags], tmp_path: Path) -> None:
    assert_ended_well([
        alone("record", tmp_path / "one.st", flags("--out", tmp_path / "one", "--batch-size", 4)),
        alone("record", tmp_path / "two.st", flags("--out", tmp_path / "two", "--batch-size", 1, "--total-batch", 4))])
    assert_same_course(tmp_path / "one.st", tmp_path / "two.st")


def test_evaluation_on_two_processes_counts_every_image_once(tmp_path: Path) -> None:
    """Of weights that know the animals; nothing is learned."""
    data = tmp_path / "data"
    for split in ("train", "val"):
        shutil.copytree(PACKAGED_IMAGES, data / "images" / split)
        shutil.copy(PACKAGED_TRUTH, data / f"{split}.json")

    def flags(out: Path) -> Flags:
        return ["train", str(data), "--preset=two-stage", "--weights", "demo", "--epochs=1", "--learning-rate=0",
                "--batch-size=1", "--backbone-learning-rate=0", "--size=256", "--max-size=400", "--num-workers=0",
                f"--out={out}"]

    one, two = tmp_path / "one", tmp_path / "two"
    assert_ended_well([alone("record", tmp_path / "one.st", flags(one))])
    assert_ended_well(ranks(2, "record", tmp_path / "two.st", flags(two)))
    numbers = [{name: value for name, value in rows(folder)[0].items() if name[:2] in ("AP", "AR")}
               for folder in (one, two)]
    assert float(numbers[0]["AP50"]) > 0.3
    assert numbers[0] == numbers[1]


def test_a_model_spread_over_processes_learns_the_same(flags: Callable[..., Flags], tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert_ended_well([alone("record", tmp_path / "one.st", flags("--out", one, "--batch-size", 4))])
    spread = ("--out", two, "--batch-size", 1, "--total-batch", 4, "--shard")
    assert_ended_well(ranks(2, "record", tmp_path / "two.st", flags(*spread, "--epochs", 1)))
    assert_ended_well(ranks(2, "record", tmp_path / "more.st", flags(*spread, "--resume")))
    losses = [float(loss) for name in ("two.st", "more.st") for loss in load_file(tmp_path / name)["losses"]]
    assert losses == pytest.approx(load_file(tmp_path / "one.st")["losses"].tolist(), rel=1e-3)
    for first, second in zip(rows(one), rows(two), strict=True):
        assert float(first["loss"]) == pytest.approx(float(second["loss"]), rel=1e-3)


@pytest.mark.slow
def test_two_machines_do_what_one_does(flags: Callable[..., Flags], tmp_path: Path) -> None:
    """Two agents of torchrun on the loopback interface, each with a process."""
    one, two = tmp_path / "one", tmp_path / "two"
    port = free_port()

    def torchrun(node: int, what: str, detail: object, flags: Flags) -> list[str]:
        return ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1",
                "--node-rank", str(node), "--master-addr", "127.0.0.1", "--master-port", str(port),
                str(DISTURBED), what, str(detail), *flags]

    assert_ended_well([alone("record", tmp_path / "one.st", flags("--out", one, "--batch-size", 4))])
    commands = [torchrun(node, "record", tmp_path / "two.st", flags("--out", two, "--batch-size", 2))
                for node in range(2)]
    assert_ended_well(run_side_by_side(commands, [{}, {}], threads=1))
    assert_same_course(tmp_path / "one.st", tmp_path / "two.st")


def test_a_nan_in_one_process_stops_all_with_its_name(flags: Callable[..., Flags], tmp_path: Path) -> None:
    results = ranks(2, "poison", "2.png", flags("--out", tmp_path / "run", "--batch-size", 1))
    for ended in results:
        assert ended.returncode == 1
        assert "2.png" in ended.stderr
        assert "Traceback" not in ended.stderr


def test_a_gradient_that_overflows_in_one_process_stops_all(flags: Callable[..., Flags], tmp_path: Path) -> None:
    for ended in ranks(2, "overflow", 1, flags("--out", tmp_path / "run", "--batch-size", 1)):
        assert ended.returncode == 1
        assert "the gradient of a step with the images '" in ended.stderr
        assert "Traceback" not in ended.stderr


def test_all_processes_are_refused_where_another_run_writes(flags: Callable[..., Flags], tmp_path: Path) -> None:
    with run_lock(tmp_path / "run"):
        results = ranks(2, "record", tmp_path / "two.st", flags("--out", tmp_path / "run", "--batch-size", 1))
    for ended in results:
        assert ended.returncode == 2
        assert "another process is writing a run into it" in ended.stderr


def test_a_process_that_dies_ends_the_others(flags: Callable[..., Flags], tmp_path: Path) -> None:
    start = time.monotonic()
    first, second = ranks(2, "vanish", 1, flags("--out", tmp_path / "run", "--batch-size", 1))
    assert time.monotonic() - start < 60
    assert (first.returncode, second.returncode) == (1, 9)
    assert "the processes of this training have lost one another" in first.stderr
    assert "Traceback" not in first.stderr
