"""The documents keep up with the code: every file is on the reading list, and every link leads somewhere."""

import re
from pathlib import Path

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


def test_the_reading_order_names_every_file_once() -> None:
    listed = [link for link in links_of(READING) if link.suffix == ".py" and link.is_relative_to(PACKAGE)]
    assert sorted(listed) == sorted(PACKAGE.rglob("*.py"))


def test_the_reading_order_is_numbered_without_gaps() -> None:
    numbers = [int(number) for number in re.findall(r"^(\d+)\. \[", READING.read_text(encoding="utf-8"), re.M)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_every_kind_of_fault_is_explained() -> None:
    text = (PROJECT / "docs" / "data.md").read_text(encoding="utf-8")
    missing = [kind.code for kind in Fault if f"| `{kind.code}` | {kind.title} | {kind.advice} |" not in text]
    assert not missing
