"""The documents keep up with the code: every file is on the reading list, and every link leads somewhere."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

import deformable_detr
from deformable_detr.datasets.kinds import Fault

PACKAGE = Path(deformable_detr.__file__).parent
PROJECT = Path(__file__).parents[1]
DOCUMENTS = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md"), *PACKAGE.rglob("*.md")])
READING = PROJECT / "docs" / "reading.md"


def links_of(document: Path) -> list[Path]:
    """Where the relative links of a document and its images lead."""
    text = document.read_text(encoding="utf-8")
    targets = [*re.findall(r"\]\(([^)\s]+)\)", text), *re.findall(r'src="([^"]+)"', text)]
    return [(document.parent / target.partition("#")[0]).resolve() for target in targets
            if not re.match(r"[a-z]+:", target) and not target.startswith("#")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_links_lead_somewhere(document: Path) -> None:
    missing = [str(link) for link in links_of(document) if not link.exists()]
    assert not missing


@pytest.fixture(scope="module")
def lines() -> ModuleType:
    """The script that writes the line numbers."""
    spec = importlib.util.spec_from_file_location("lines", PROJECT / "docs" / "lines.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_links_lead_to_the_lines_of_their_definitions(lines: ModuleType) -> None:
    assert READING in lines.documents()
    for document in lines.documents():
        text = document.read_text(encoding="utf-8")
        assert text == lines.refreshed(document), "code has moved: run python docs/lines.py"
        numbered = re.findall(r"\.py#L\d+\)", text)
        assert len(numbered) == len(lines.LINK.findall(text)), "a line number is linked without the definition's name"
    found = lines.LINK.search(READING.read_text(encoding="utf-8"))
    line = (READING.parent / found["file"]).read_text(encoding="utf-8").splitlines()[int(found["line"]) - 1]
    assert found["name"].rpartition(".")[2] in line


def test_line_numbers_are_written_anew(lines: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("LIMIT: int = 3\n\n\nclass Cat:\n    def purr(self): ...\n\n\ndef feed(): ...\n")
    document = tmp_path / "page.md"
    document.write_text("[`Cat.purr`](code.py#L9), [`feed`](code.py#L1), [`LIMIT`](code.py#L7), [here](code.py)")
    assert lines.refreshed(document) == (
        "[`Cat.purr`](code.py#L5), [`feed`](code.py#L8), [`LIMIT`](code.py#L1), [here](code.py)")
    document.write_text("[`Cat.bark`](code.py#L9)")
    with pytest.raises(LookupError, match=r"page\.md: code\.py has no definition Cat\.bark"):
        lines.refreshed(document)


def test_the_reading_order_names_every_file_once() -> None:
    text = READING.read_text(encoding="utf-8")
    listed = [(READING.parent / file).resolve() for file in re.findall(r"^\d+\. \[`[^`]+`\]\(([^)#]+)\)", text, re.M)]
    assert sorted(listed) == sorted(PACKAGE.rglob("*.py"))


def test_the_reading_order_is_numbered_without_gaps() -> None:
    numbers = [int(number) for number in re.findall(r"^(\d+)\. \[", READING.read_text(encoding="utf-8"), re.M)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_every_kind_of_fault_is_explained() -> None:
    text = (PROJECT / "docs" / "data.md").read_text(encoding="utf-8")
    missing = [kind.code for kind in Fault if f"| `{kind.code}` | {kind.title} | {kind.advice} |" not in text]
    assert not missing
