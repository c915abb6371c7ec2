"""The long lists of a JSON file, without all of their entries at once.

As Python's objects, an annotation file of a gigabyte would take ten. Here it stays as it is written, and entries are
made of it when they are asked for.
"""

import codecs
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import msgspec

from deformable_detr.datasets.documents import parse_json, read_bytes

STRIDE = 2**20      # bytes whose encoding is checked at once

Item = TypeVar("Item")

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LIST = msgspec.json.Decoder(list[msgspec.Raw])


class Entries(Sequence[Any]):
    """The entries of a JSON list, each as `json` reads it, made when it is asked for.

    That raises DocumentError for what only `json` refuses: a number of thousands of digits.
    """

    def __init__(self, raw: list[msgspec.Raw]) -> None:
        self._raw = raw

    def __len__(self) -> int:
        return len(self._raw)

    @overload
    def __getitem__(self, index: int) -> Any: ...

    @overload
    def __getitem__(self, index: slice) -> "Entries": ...

    def __getitem__(self, index: int | slice) -> Any:
        return Entries(self._raw[index]) if isinstance(index, slice) else parse_json(bytes(self._raw[index]))

    def __iter__(self) -> Iterator[Any]:
        return (parse_json(bytes(raw)) for raw in self._raw)

    def typed(self, decoder: "msgspec.json.Decoder[list[Item]]") -> list[Item] | None:
        """All of them as the decoder has it, which is far quicker; None where one is something else."""
        try:
            return decoder.decode(b"[" + b",".join(self._raw) + b"]")
        except (msgspec.DecodeError, RecursionError):
            return None


def read_json_lists(file: Path) -> Any:
    """The content of a JSON file; if it is an object, the lists in it are `Entries`. Raises DocumentError."""
    content = read_bytes(file)
    try:
        _check_encoding(content)
        return {key: Entries(_LIST.decode(raw)) if memoryview(raw)[:1] == b"[" else parse_json(bytes(raw))
                for key, raw in _OBJECT.decode(content).items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # `json` takes more than the standard has, such as NaN; of what it refuses too, it names the line.
        return parse_json(content)


def _check_encoding(content: bytes) -> None:
    """Raise UnicodeDecodeError for what is not UTF-8, which msgspec does not see in what it skips."""
    decoder, view = codecs.getincrementaldecoder("utf-8")(), memoryview(content)
    for start in range(0, len(view), STRIDE):
        decoder.decode(view[start:start + STRIDE])
    decoder.decode(b"", final=True)
