"""The members of a tar archive that is not trusted, by its headers: where their bytes are. Nothing is ever unpacked.

`tarfile` reads a single header here; walking from one to the next is ours, since its own walk keeps every member in
memory, and reads as much for a long name as the archive asks for.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from deformable_detr.datasets.findings import EntryError, Findings, Place
from deformable_detr.datasets.kinds import Kind
from deformable_detr.datasets.layout import check_name
from deformable_detr.text import quoted

BLOCK = tarfile.BLOCKSIZE
MAX_NAME = 1000                 # characters
MAX_EXTENDED = 2**16            # bytes of a header of a header, which holds a name
MAX_MEMBERS = 1_000_000

COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
SAYS_MORE = (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME)     # of the member to come
SAYS_NOTHING = (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK)  # that matters here
FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
LINKS = (tarfile.LNKTYPE, tarfile.SYMTYPE)
SPARSE = "GNU.sparse."          # begins the words by which a pax header says so


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive: which bytes it is."""

    name: str
    start: int
    size: int


def read_members(file: Path, findings: Findings) -> Iterator[Member]:
    """The files of an archive without those at fault, which are reported; nor hidden ones.

    From where the archive itself is damaged no more of it is read.
    """
    try:
        with file.open("rb") as stream:
            yield from _Walk(stream, file, findings).members()
    except EntryError as fault:
        findings.add(fault.kind, Place(file), fault.message)
    except OSError as error:
        findings.add(Kind.ANNOTATION_FILE, Place(file), f"cannot be read: {error.strerror}")


class _Walk:
    """From header to header. What is wrong with a single member is reported, with the archive raised."""

    def __init__(self, stream: BinaryIO, file: Path, findings: Findings) -> None:
        self.stream, self.file, self.findings = stream, file, findings
        self.end = file.stat().st_size
        self.position = 0
        self.said: dict[str, str] = {}      # of the member to come, by headers before its own

    def members(self) -> Iterator[Member]:
        for _ in range(MAX_MEMBERS):
            header = self._header()
            if header is None:
                return
            if header.type in SAYS_MORE:
                self.said |= _said(header.type, self._extension(header.size))
            elif header.type in SAYS_NOTHING:
                self._extension(header.size)
            else:
                said, self.said = self.said, {}
                member = self._member(header, said)
                if member:
                    yield member
        raise _damaged(f"more than {MAX_MEMBERS:,} members")

    def _header(self) -> tarfile.TarInfo | None:
        """The next one, None at the end."""
        self.stream.seek(self.position)
        block = self.stream.read(BLOCK)
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            if block == bytes(BLOCK):
                return None
            raise _damaged(self._reason(block)) from None
        self.position += BLOCK
        return header

    def _reason(self, block: bytes) -> str:
        """What is wrong with a block that is no header."""
        if self.position == 0:
            by = next((name for start, name in COMPRESSED.items() if block.startswith(start)), None)
            return f"expected an uncompressed tar archive, got {f'one compressed by {by}' if by else 'something else'}"
        if len(block) < BLOCK:
            return f"the end of the archive is missing, behind byte {self.end:,}"
        return f"expected the header of a member at byte {self.position:,}, got something else"

    def _extension(self, size: int) -> bytes:
        """What a header holds for another one."""
        if not 0 <= size <= MAX_EXTENDED:
            raise _damaged(f"expected a header of at most {MAX_EXTENDED:,} bytes at byte {self.position:,}, got one of "
                           f"{size:,}")
        self.stream.seek(self.position)
        content = self.stream.read(size)
        self.position += _blocks(size)
        return content

    def _member(self, header: tarfile.TarInfo, said: dict[str, str]) -> Member | None:
        """The file of a header. Skips folders and hidden files, and what is refused, which is reported."""
        name = PurePosixPath(said.get("path", header.name)).as_posix()
        place = Place(self.file, entry=name[:MAX_NAME])
        size = _size(said.get("size", header.size))
        if header.type == tarfile.GNUTYPE_SPARSE:
            raise _damaged(f"{quoted(name)} is sparse, which is not read, nor what follows")
        start = self.position
        if header.type in FILES:
            if size > self.end - start:
                raise _damaged(f"{quoted(name)} ends at byte {start + size:,}, the archive at {self.end:,}")
            self.position += _blocks(size)
        if header.isdir() or PurePosixPath(name).name.startswith("."):
            return None
        try:
            _check(header, name, any(key.startswith(SPARSE) for key in said))
        except EntryError as fault:
            self.findings.add(fault.kind, place, fault.message)
            return None
        return Member(name, start, size)


def _check(header: tarfile.TarInfo, name: str, is_sparse: bool) -> None:
    """Raise EntryError for a member that is no ordinary file, or whose name cannot be."""
    if len(name) > MAX_NAME:
        raise EntryError(Kind.NAME_REFUSED, f"expected a name of at most {MAX_NAME:,} characters, got {len(name):,}")
    check_name(name)
    if header.type in LINKS:
        raise EntryError(Kind.NAME_REFUSED, f"expected a file, got a link to {quoted(header.linkname)}")
    if header.type not in FILES or is_sparse:
        got = "a sparse one" if is_sparse else f"one of type {quoted(header.type.decode('latin-1'))}"
        raise EntryError(Kind.ENTRY, f"expected an ordinary file, got {got}")


def _said(kind: bytes, content: bytes) -> dict[str, str]:
    """What an extended header says of the member to come: GNU's is the name, pax has lines of length, key = value."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        return {"path": _text(content.partition(b"\0")[0])}
    said, rest = {}, content
    while rest:
        length, _, line = rest.partition(b" ")
        if not length.isdigit() or len(length) > 8 or not len(length) + 1 < int(length) <= len(rest):
            raise _damaged(f"an extended header is damaged: {quoted(rest)}")
        key, _, value = line[:int(length) - len(length) - 1].rstrip(b"\n").partition(b"=")
        said[_text(key)] = _text(value)
        rest = rest[int(length):]
    return said


def _size(written: int | str) -> int:
    """A size in bytes. Raises EntryError for what is none."""
    if isinstance(written, str):
        written = int(written) if written.isdecimal() and len(written) < 20 else -1
    if written < 0:
        raise _damaged("a member's size is no number of bytes")
    return written


def _blocks(size: int) -> int:
    """What that many bytes take up."""
    return -(-size // BLOCK) * BLOCK


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")


def _damaged(message: str) -> EntryError:
    return EntryError(Kind.ANNOTATION_FILE, message)
