"""The saved state of a training: every damage is an error before anything is changed; former files still resume."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import Tensor

from deformable_detr.criterion.matching import NonFiniteError
from deformable_detr.model.network import Network
from deformable_detr.papers.config import Preset
from deformable_detr.structures import ImageBatch, Target
from deformable_detr.training import Recipe, SetLoss, build_optimizer, state
from deformable_detr.training.average import moving_average
from deformable_detr.training.state import Averages, RunStatus, TrainingState, read_state, write_state
from deformable_detr.training.tensors import check_training_tensors, load_training_tensors, training_tensors
from deformable_detr.weights.native import FORMER_NAMES
from helpers.models import small_model

pytestmark = pytest.mark.usefixtures("undrawn")

Train = Callable[..., int]
STATUS = RunStatus(epoch=2, step=3, averages=Averages(3, 1.5, {"loss_ce": 0.5}), best_ap=0.25, epochs_since_best=1)


def trained(preset: Preset = "two-stage") -> tuple[Network, torch.optim.Optimizer]:
    """After one step."""
    model = small_model(preset).train()
    optimizer = build_optimizer(model, Recipe())
    target = Target(torch.tensor([1]), torch.tensor([[0.5, 0.5, 0.2, 0.3]]))
    SetLoss()(model(ImageBatch.from_images([torch.rand(3, 64, 96)])), [target]).total.backward()
    optimizer.step()
    return model, optimizer


@pytest.mark.parametrize("preset", ["single-scale", "single-scale-dc5", "multi-scale", "refine", "two-stage"])
def test_what_is_written_fits_and_is_given_back(preset: Preset, tmp_path: Path) -> None:
    model, optimizer = trained(preset)
    average = moving_average(model, 0.9)
    average.update_parameters(model)
    tensors = training_tensors(model, optimizer, average)
    write_state(tmp_path / "state", TrainingState(STATUS, tensors, {"scale": 2.0}))
    found = read_state(tmp_path / "state")
    assert (found.status, found.scaler) == (STATUS, {"scale": 2.0})
    other = small_model(preset).train()
    other_optimizer, other_average = build_optimizer(other, Recipe()), moving_average(other, 0.9)
    check_training_tensors(found.tensors, other, other_average)
    load_training_tensors(found.tensors, other, other_optimizer, other_average)
    again = training_tensors(other, other_optimizer, other_average)
    assert again.keys() == tensors.keys()
    assert all(torch.equal(tensor, again[name]) for name, tensor in tensors.items())


def test_any_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "state"
    write_state(path, TrainingState(STATUS, training_tensors(*trained(), None), {}))
    content = path.read_bytes()
    random = torch.Generator().manual_seed(0)
    for place in torch.randint(8, len(content), (60,), generator=random).tolist():
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(torch.randint(8, (), generator=random))
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: not the state of a training, or damaged"):
            read_state(path)


def relabelled(tensor: Tensor) -> Tensor:
    return tensor.view(torch.int32)


@pytest.mark.parametrize(("name", "change", "message"), [
    ("model/pyramid.level_embedding", None, "1 tensors missing, such as model/pyramid.level_embedding"),
    ("optimizer/pyramid.level_embedding/exp_avg", None, "1 tensors missing, such as optimizer/pyramid.level_emb"),
    ("average/module.pyramid.level_embedding", None, "1 tensors missing"),
    ("model/nothing", lambda _: torch.zeros(1), "1 tensors unknown, such as model/nothing"),
    ("optimizer/pyramid.level_embedding/exp_avg_sq", lambda _: torch.zeros(7, 7),
     r"of another shape, such as .* \(expected \(4, 32\), got \(7, 7\)\)"),
    ("model/pyramid.level_embedding", relabelled, r"of another type, such as .* \(expected float32, got int32\)"),
    ("model/pyramid.level_embedding", lambda tensor: tensor * torch.nan, "model/pyramid.level_embedding is not finite"),
    ("optimizer/pyramid.level_embedding/exp_avg", lambda tensor: tensor + torch.inf, "exp_avg is not finite"),
    ("optimizer/pyramid.level_embedding/exp_avg_sq", lambda tensor: tensor - 1, "exp_avg_sq is negative"),
    ("average/n_averaged", lambda tensor: tensor - 9, "average/n_averaged is negative"),
])
def test_tensors_that_do_not_fit(name: str, change: Callable[[Tensor], Tensor] | None, message: str) -> None:
    model, optimizer = trained()
    average = moving_average(model, 0.9)
    tensors = training_tensors(model, optimizer, average)
    if change:
        tensors[name] = change(tensors.get(name, torch.zeros(0)))
    else:
        del tensors[name]
    with pytest.raises(ValueError, match=message):
        check_training_tensors(tensors, model, average)


@pytest.mark.parametrize("values", [
    {"epoch": "x"}, {"epoch": None}, {"epoch": -3}, {"step": 1.5}, {"epochs_since_best": True}, {"best_ap": "x"},
    {"best_ap": float("nan")}, {"best_ap": 1.5}, {"epochs_since_best": 9}, {"step": 4},
    {"averages": None}, {"averages": {"steps": "x"}}, {"averages": {"total": None}}, {"averages": {"parts": [1]}},
    {"averages": {"parts": {"boxes": "x"}}}, {"other": 1}, {"averages": {"other": 1}}])
def test_a_damaged_status_is_named(tmp_path: Path, values: dict[str, Any]) -> None:
    path, status = tmp_path / "state.safetensors", {"averages": {}, **values}
    header = {"status": json.dumps(status), "scaler": "{}"}
    path.write_bytes(serialise({}, {"format": state.FORMAT, "checksum": state.checksum({}, header), **header}))
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}: not the state of a training, or damaged \("):
        read_state(path)


@pytest.mark.parametrize("scaler", ["[]", '{"scale": NaN}', '{"scale": "x"}', '{"scale": -1.0}'])
def test_a_damaged_loss_scale_is_named(tmp_path: Path, scaler: str) -> None:
    header = {"status": json.dumps({"averages": {}}), "scaler": scaler}
    (tmp_path / "state").write_bytes(serialise({}, {"format": state.FORMAT, "checksum": state.checksum({}, header),
                                                    **header}))
    with pytest.raises(ValueError, match="scaler"):
        read_state(tmp_path / "state")


def test_losses_of_another_kind_cannot_be_averaged() -> None:
    with pytest.raises(ValueError, match=r"losses: expected the same .* \['loss_bbox', 'loss_ce'\]"):
        Averages(3, 1.0, {"loss_ce": 1.0}).add(1.0, {"loss_bbox": 1.0})


def test_what_is_not_finite_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "state"
    write_state(path, TrainingState(STATUS, {"model/a": torch.zeros(2)}, {}))
    before = path.read_bytes()
    tensors = {"model/a": torch.zeros(2), "model/b": torch.tensor([1, torch.inf])}
    with pytest.raises(NonFiniteError, match="model/b"):
        write_state(path, TrainingState(STATUS, tensors, {}))
    assert path.read_bytes() == before


def write_as_before(path: Path, found: TrainingState) -> None:
    """As the first release wrote it: another header, no checksum, former names."""
    def former(name: str) -> str:
        for before, now in FORMER_NAMES.items():
            name = name.replace(f"/{now}", f"/{before}").replace(f"module.{now}", f"module.{before}")
        return name

    header = {"format": state.FORMER_FORMAT, "standing": json.dumps(asdict(found.status)),
              "scaler": json.dumps(found.scaler)}
    path.write_bytes(serialise({former(name): tensor for name, tensor in found.tensors.items()}, header))


def test_a_run_of_the_release_before_resumes(train: Train, tmp_path: Path) -> None:
    out, flags = tmp_path / "run", ("--ema-decay", 0.9)
    assert train("--out", out, "--epochs", 1, *flags) == 0
    path = out / "state.safetensors"
    before = read_state(path)
    write_as_before(path, before)
    assert any("box_projection" in name for name in load_file(path))
    assert all(torch.equal(tensor, before.tensors[name]) for name, tensor in read_state(path).tensors.items())
    settings = (out / "config.yaml").read_text()
    for line in ("  flip: horizontal\n", "  quarter_turns: false\n", "  repeat_threshold: 0.0\n"):
        assert line in settings
        settings = settings.replace(line, "")
    start, _, rest = settings.partition("data:\n")
    (out / "config.yaml").write_text(start + rest[rest.index("provenance:"):])
    assert train("--out", out, "--epochs", 2, *flags, "--resume") == 0
    assert read_state(path).status.epoch == 2


def test_a_damaged_file_changes_nothing(train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert train("--out", out, "--epochs", 1) == 0
    path = out / "state.safetensors"
    content, found = path.read_bytes(), read_state(path)
    with safetensors.safe_open(path, framework="pt") as file:
        header = file.metadata()
    poisoned = {**found.tensors, "model/pyramid.level_embedding": torch.full((4, 32), torch.nan)}
    far = replace(found, status=RunStatus(step=10**9, averages=Averages(10**9, 1.0, {})))
    others = {path: path.read_bytes() for path in out.iterdir() if path.name != "state.safetensors"}
    damages = [content[:1000], b"", b"no state", (out / "best.safetensors").read_bytes(), serialise(poisoned, header)]
    for damaged in [*damages, far]:
        if isinstance(damaged, bytes):
            path.write_bytes(damaged)
        else:
            write_state(path, damaged)
        assert train("--out", out, "--epochs", 2, "--resume") == 2
        assert "state.safetensors: cannot be resumed" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.iterdir() if path.name != "state.safetensors"} == others
