"""The layout is the architecture: a file imports only from its own folder or from rooms above it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import deformable_detr

PACKAGE = Path(deformable_detr.__file__).parent
ORDER = ["lazy", "dynamo", "memory", "text", "files", "documents", "marks", "progress", "boxes", "addresses", "images",
         "fonts", "plots", "drawing", "ops", "detections", "structures", "preprocessing", "model", "criterion",
         "papers", "datasets", "check", "loading", "evaluation", "weights", "web", "explain", "export", "detect",
         "report", "training", "server", "doctor", "cli", "__main__"]
BESIDE = {"datasets", "check", "loading", "evaluation"}     # know no paper, and no part of a model
MODELS = {"model", "criterion", "papers", "weights"}


def imported_modules(source: Path) -> set[str]:
    """Modules of the package that a file imports, inside functions too, but not for type checks alone."""
    names: set[str] = set()
    for node in ast.walk(without_type_checking(ast.parse(source.read_text()))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source}: relative import; write the whole name"
            assert node.module
            names.update(f"{node.module}.{alias.name}" if is_module(f"{node.module}.{alias.name}") else node.module
                         for alias in node.names)
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return {name for name in names if name.startswith("deformable_detr.")} - {module_of(source)}


def is_module(name: str) -> bool:
    path = PACKAGE.parent / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()


def module_of(source: Path) -> str:
    return ".".join(source.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def imported_rooms(source: Path) -> set[str]:
    return {module.split(".")[1] for module in imported_modules(source)}


def without_type_checking(tree: ast.Module) -> ast.Module:
    tree.body = [node for node in tree.body
                 if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")]
    return tree


def room_of(source: Path) -> str:
    return source.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_file_has_a_place_in_the_order() -> None:
    rooms = {room_of(source) for source in PACKAGE.rglob("*.py")} - {"__init__"}
    assert rooms <= set(ORDER)


def test_imports_point_upwards() -> None:
    for source in PACKAGE.rglob("*.py"):
        room = room_of(source)
        if room == "__init__":
            continue
        above = set(ORDER[: ORDER.index(room) + 1])
        below = imported_rooms(source) & set(ORDER) - above
        assert not below, f"{source.relative_to(PACKAGE)} imports {sorted(below)}, which lie below it"


def test_data_sets_know_no_model() -> None:
    for room in BESIDE:
        for source in [PACKAGE / f"{room}.py", *(PACKAGE / room).rglob("*.py")]:
            if source.is_file():
                assert not imported_rooms(source) & MODELS, source
    for source in (PACKAGE / "check").rglob("*.py"):
        assert "loading" not in imported_rooms(source), source


def test_no_circle() -> None:
    """Nobody imports, through however many others, a file that imports it."""
    needs = {module_of(source): imported_modules(source) for source in PACKAGE.rglob("*.py")}
    while leaves := {module for module, imports in needs.items() if not imports & needs.keys()}:
        needs = {module: imports for module, imports in needs.items() if module not in leaves}
    assert not needs, f"files that import each other in a circle: {sorted(needs)}"


@pytest.mark.parametrize("module", ["structures", "criterion.losses"])
def test_tensors_need_no_images(module: str) -> None:
    """A model, or a loss, can be used where neither Pillow nor torchvision nor matplotlib is installed."""
    program = f"import deformable_detr.{module}, sys; print({{'PIL', 'torchvision', 'matplotlib'}} & {{*sys.modules}})"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
