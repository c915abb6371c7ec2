"""The layout is the architecture: a file imports only from its own folder or from rooms above it."""

import ast
from pathlib import Path

import deformable_detr

PACKAGE = Path(deformable_detr.__file__).parent
ORDER = ["boxes", "progress", "images", "drawing", "structures", "ops", "model", "weights", "data", "evaluation",
         "detector", "report", "training", "explain", "doctor", "cli", "__main__"]


def imported_rooms(source: Path) -> set[str]:
    """Top-level rooms of the package that a file imports, inside functions too, but not for type checks alone."""
    names: set[str] = set()
    for node in ast.walk(without_type_checking(ast.parse(source.read_text()))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source}: relative import; write the whole name"
            modules = [node.module] if node.module != "deformable_detr" else [
                f"deformable_detr.{alias.name}" for alias in node.names]
            names.update(module for module in modules if module)
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return {name.split(".")[1] for name in names if name.startswith("deformable_detr.")}


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
