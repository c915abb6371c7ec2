"""The flags of `ddetr train`: those of the model and of the recipe, and what is refused before torch is imported."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, get_args, get_type_hints

import pytest

from deformable_detr import cli
from deformable_detr.cli.train_flags import ModelFlags, RecipeFlags, given
from deformable_detr.papers import Config
from deformable_detr.papers.config import Preset
from deformable_detr.training import Recipe

BCCD = Path(__file__).parents[1] / "fixtures" / "bccd-small"

MAIN = """
import sys
from deformable_detr.cli import main
code = main(sys.argv[1:])
sys.stderr.write("heavy: " + " ".join(sorted({"torch", "torchvision", "timm", "accelerate"} & {*sys.modules})))
sys.exit(code)
"""


def test_the_flags_of_the_model_are_the_fields_of_all_papers() -> None:
    expected = {field.name: field.type | None for config in Config.papers.values() for field in fields(config)
                if field.name != "num_classes"}
    assert {field.name: field.type for field in fields(ModelFlags)} == expected


def test_the_flags_of_the_recipe_are_its_fields() -> None:
    expected = {name: hint | None for name, hint in get_type_hints(Recipe).items()}
    assert get_type_hints(RecipeFlags) == expected
    assert list(get_type_hints(RecipeFlags)) == [field.name for field in fields(Recipe)]


def test_every_preset_has_a_name() -> None:
    assert sorted(get_args(Preset)) == sorted(preset for config in Config.papers.values() for preset in config.presets)


def test_only_flags_that_are_given_count() -> None:
    assert given(None) == {}
    assert given(RecipeFlags(epochs=3, recompute=False, trackers=())) == {"epochs": 3, "recompute": False,
                                                                          "trackers": ()}
    assert given(ModelFlags(dropout=0.0)) == {"dropout": 0.0}


def test_a_flag_without_meaning_for_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Config, "papers", dict(Config.papers))

    @dataclass(frozen=True)
    class OtherConfig(Config):
        paper: ClassVar[str] = "other"
        presets: ClassVar[dict[Preset, dict[str, Any]]] = {}
        temperature: float = 20

    assert OtherConfig.with_fields({"temperature": 10}).to_dict()["temperature"] == 10
    with pytest.raises(ValueError, match=r"^temperature: has no meaning for deformable-detr$"):
        Config.preset("two-stage", temperature=10)
    with pytest.raises(ValueError, match=r"^num_points: has no meaning for other$"):
        OtherConfig.with_fields({"num_points": 4})


def test_every_field_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    cli.app(["train", "--help"], result_action="return_value")
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for words in ("Passes over the data.", "Channels of a token; a multiple of num_heads.", "--flip CHOICE",
                  "--no-quarter-turns",
                  "[choices: single-scale, single-scale-dc5, multi-scale, refine, two-stage, detr, detr-dc5,"):
        assert words in text


@pytest.mark.parametrize(("arguments", "message"), [
    (["nowhere"], "nowhere: expected the folder of a data set, got nothing"),
    ([str(BCCD), "--out", "used"], "used: holds another run (choose another --out, or go on with a run by --resume)"),
    ([str(BCCD), "--out", "empty", "--resume"], "empty: no run to resume"),
    ([str(BCCD), "--weights", "nothing.safetensors"], "a file or a folder, got 'nothing.safetensors'"),
    ([str(BCCD), "--weights", "demo", "--width", "64"], "weights: expected no change of width"),
    ([str(BCCD), "--epochs", "0"], "epochs: expected at least 1, got 0"),
    ([str(BCCD), "--preset", "two"], "--preset"),
])
def test_refusals_come_before_heavy_imports(arguments: Sequence[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "state.safetensors").touch()
    done = subprocess.run([sys.executable, "-c", MAIN, "train", *arguments], cwd=tmp_path, capture_output=True,
                          text=True)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.endswith("heavy: ")
