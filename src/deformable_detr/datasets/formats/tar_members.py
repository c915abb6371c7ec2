"""The members of an untrusted tar archive: where their bytes are, from its headers. Nothing is ever unpacked.

`tarfile` parses single headers here. Walking from one to the next is ours: its own walk keeps every member in memory,
reads as much for a long name as the archive asks for, and on a member of negative size goes back and never ends.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from deformable_detr.datasets.findings import EntryError, Findings, Place
from deformable_detr.datasets.kinds import Fault
from deformable_detr.datasets.layout import check_name
from deformable_detr.text import quoted

BLOCK = tarfile.BLOCKSIZE
MAX_NAME = 1000                 # characters
MAX_EXTENDED = 2**16            # bytes of an extended header, which holds a name
MAX_MEMBERS = 1_000_000

COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
OF_NEXT = (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME)       # extended headers of the next member
SKIPPED = (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK)       # extended headers without anything of use here
FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
LINKS = (tarfile.LNKTYPE, tarfile.SYMTYPE)
SPARSE = "GNU.sparse."          # begins the keys of pax headers of sparse files


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive: its name, its first byte and its number of bytes."""

    name: str
    start: int
    size: int


def read_members(file: Path, findings: Findings) -> Iterator[Member]:
    """The files of an archive without hidden ones and those at fault, which are reported.

    Where the archive itself is damaged, reading ends.
    """
    try:
        with file.open("rb") as stream:
            for header in _walk(stream, file.stat().st_size):
                name = PurePosixPath(header.name).as_posix()
                if header.isdir() or PurePosixPath(name).name.startswith("."):
                    continue
                try:
                    _check(header, name)
                except EntryError as fault:
                    findings.add(fault.kind, Place(file, entry=name[:MAX_NAME]), fault.message)
                else:
                    yield Member(name, header.offset_data, header.size)
    except EntryError as fault:
        findings.add(fault.kind, Place(file), fault.message)
    except OSError as error:
        findings.add(Fault.ANNOTATION_FILE, Place(file), f"cannot be read: {error.strerror}")


def read_member(file: Path, start: int, size: int) -> bytes:
    """The bytes of a member. The file is opened each time, so that processes and threads share no handle.

    Raises OSError.
    """
    with file.open("rb") as stream:
        stream.seek(start)
        content = stream.read(size)
    if len(content) < size:
        raise OSError("the file has become shorter")
    return content


def _walk(stream: BinaryIO, end: int) -> Iterator[tarfile.TarInfo]:
    """The headers of the members, with what extended headers add to them. Raises EntryError for a damaged archive."""
    position, extended = 0, dict[str, str]()
    for _ in range(MAX_MEMBERS):
        header = _read_header(stream, position, end)
        if header is None:
            return
        position += BLOCK
        if header.type in OF_NEXT + SKIPPED:
            if not 0 <= header.size <= MAX_EXTENDED:
                raise _damaged(f"expected a header of at most {MAX_EXTENDED:,} bytes at byte {position:,}, got one of "
                               f"{header.size:,}")
            if header.type in OF_NEXT:
                extended |= _parse_extension(header.type, stream.read(header.size))
            position += _in_blocks(header.size)
            continue
        header.name, header.size = extended.get("path", header.name), _parse_size(extended.get("size", header.size))
        header.offset_data, header.pax_headers, extended = position, extended, {}
        if header.type == tarfile.GNUTYPE_SPARSE:
            raise _damaged(f"{quoted(header.name)} is sparse, which is not read, nor what follows")
        if header.type in FILES:
            if header.size > end - position:
                raise _damaged(f"{quoted(header.name)} ends at byte {position + header.size:,}, the archive at {end:,}")
            position += _in_blocks(header.size)
        yield header
    raise _damaged(f"more than {MAX_MEMBERS:,} members")


def _read_header(stream: BinaryIO, position: int, end: int) -> tarfile.TarInfo | None:
    """The header at a position; None at the end of the archive."""
    stream.seek(position)
    block = stream.read(BLOCK)
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        if block == bytes(BLOCK):
            return None
    if position == 0:
        by = next((name for start, name in COMPRESSED.items() if block.startswith(start)), None)
        got = f"one compressed by {by}" if by else "something else"
        raise _damaged(f"expected an uncompressed tar archive, got {got}")
    if len(block) < BLOCK:
        raise _damaged(f"the end of the archive is missing, after byte {end:,}")
    raise _damaged(f"expected the header of a member at byte {position:,}, got something else")


def _check(header: tarfile.TarInfo, name: str) -> None:
    """Raise EntryError for a member that is no ordinary file, or has a refused name."""
    if len(name) > MAX_NAME:
        raise EntryError(Fault.NAME_REFUSED,
                         f"expected a name of at most {MAX_NAME:,} characters, got {len(name):,}")
    check_name(name)
    if header.type in LINKS:
        raise EntryError(Fault.NAME_REFUSED, f"expected a file, got a link to {quoted(header.linkname)}")
    is_sparse = any(key.startswith(SPARSE) for key in header.pax_headers)
    if header.type not in FILES or is_sparse:
        got = "a sparse one" if is_sparse else f"one of type {quoted(header.type.decode('latin-1'))}"
        raise EntryError(Fault.ENTRY, f"expected an ordinary file, got {got}")


def _parse_extension(kind: bytes, content: bytes) -> dict[str, str]:
    """The fields of an extended header: GNU's is the name; pax has records "length key=value"."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        return {"path": _decoded(content.partition(b"\0")[0])}
    fields, rest = {}, content
    while rest:
        length, _, record = rest.partition(b" ")
        if not length.isdigit() or len(length) > 8 or not len(length) + 1 < int(length) <= len(rest):
            raise _damaged(f"an extended header is damaged: {quoted(rest)}")
        key, _, value = record[:int(length) - len(length) - 1].rstrip(b"\n").partition(b"=")
        fields[_decoded(key)] = _decoded(value)
        rest = rest[int(length):]
    return fields


def _parse_size(written: int | str) -> int:
    """A number of bytes, which pax writes as text."""
    if isinstance(written, str):
        written = int(written) if written.isdecimal() and len(written) < 20 else -1
    if written < 0:
        raise _damaged("a member's size is no number of bytes")
    return written


def _in_blocks(size: int) -> int:
    """The bytes of the blocks that hold this many."""
    return -(-size // BLOCK) * BLOCK


def _decoded(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")


def _damaged(message: str) -> EntryError:
    return EntryError(Fault.ANNOTATION_FILE, message)
