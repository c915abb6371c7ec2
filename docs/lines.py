"""Keep the line numbers of links true: `python docs/lines.py` writes them anew into the documents.

A link such as [`Head.forward`](../src/deformable_detr/model/heads.py#L1) names a definition of that file: a class, a
function, a method or a constant. Its number is whatever line the definition is on. After code has moved, run this; a
test (tests/test_docs.py) says so.
"""

import ast
import re
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[1]
LINK = re.compile(r"\[`(?P<name>[\w.]+)`\]\((?P<file>[^()\s#]+\.py)#L(?P<line>\d+)\)")


def documents() -> list[Path]:
    """Those whose links are kept."""
    return sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md")])


def refreshed(document: Path) -> str:
    """The text of a document with the lines that its definitions are on now. LookupError for one that is nowhere."""
    def link(found: re.Match[str]) -> str:
        name, file = found["name"], found["file"]
        line = definitions(document.parent / file).get(name)
        if line is None:
            raise LookupError(f"{document.name}: {file} has no definition {name}")
        return f"[`{name}`]({file}#L{line})"

    return LINK.sub(link, document.read_text(encoding="utf-8"))


def definitions(file: Path) -> dict[str, int]:
    """The line of each definition: classes, functions, constants; methods as Class.method."""
    found: dict[str, int] = {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        found |= _defined(node)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{name}": line for part in node.body for name, line in _defined(part).items()}
    return found


def _defined(node: ast.stmt) -> dict[str, int]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return {node.name: node.lineno}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {target.id: node.lineno for target in targets if isinstance(target, ast.Name)}


def main() -> int:
    """Write every document whose lines have moved."""
    for document in documents():
        text = refreshed(document)
        if text != document.read_text(encoding="utf-8"):
            document.write_text(text, encoding="utf-8")
            sys.stdout.write(f"{document.relative_to(PROJECT)}: lines written anew\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
