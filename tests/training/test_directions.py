"""Classes that differ by a direction: augmentation that would make them one can be switched off, and is warned of."""

from collections.abc import Callable
from pathlib import Path

import pytest

from deformable_detr.datasets.sides import direction_names, left_right_names, up_down_names
from deformable_detr.training.class_names import warn_of_mirrored_classes
from deformable_detr.training.recipe import Flip

pytestmark = pytest.mark.usefixtures("undrawn")

Train = Callable[..., int]


def test_names_of_directions() -> None:
    sides = ["turn left", "turn-right", "TurnLeft", "left_shoe", "RightHand", "leftward", "keepright", "links",
             "Linker Schuh", "rechts abbiegen", "à gauche", "droite", "izquierda", "左", "右转", "clockwise"]
    assert left_right_names(sides) == sides
    heights = ["arrow up", "Down", "upper deck", "bottom", "oben"]
    assert up_down_names(heights) == heights
    assert direction_names(["horizontal pole", "north", "left", "up"]) == ["horizontal pole", "north", "left", "up"]
    others = ["bright lamp", "copyright", "cleft", "cup", "supper", "traffic light", "destroyer", "link"]
    assert not left_right_names(others)
    assert not up_down_names(others)
    assert not direction_names(others)


@pytest.mark.parametrize(("flip", "quarter_turns", "warned"), [
    ("horizontal", False, ["left", "right"]), ("both", False, ["left", "right", "up"]), ("vertical", False, ["up"]),
    ("none", False, []), ("none", True, ["left", "right", "up"])])
def test_a_warning_names_the_classes(flip: Flip, quarter_turns: bool, warned: list[str],
                                     caplog: pytest.LogCaptureFixture) -> None:
    warn_of_mirrored_classes(["arrow", "left", "right", "up"], flip, quarter_turns=quarter_turns)
    assert [name for name in ("arrow", "left", "right", "up") if f"'{name}'" in caplog.text] == warned


def test_train_warns_where_it_mirrors_and_not_elsewhere(train: Train, squares: Path, tmp_path: Path,
                                                        capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "val"):
        file = squares / f"{split}.json"
        file.write_text(file.read_text().replace('"square"', '"turn left"'))
    assert train("--out", tmp_path / "first", "--epochs", 1) == 0
    assert "flip 'horizontal' mirrors training images left to right, but class names" in capsys.readouterr().err
    assert train("--out", tmp_path / "second", "--epochs", 1, "--flip", "none") == 0
    assert "class names" not in capsys.readouterr().err
