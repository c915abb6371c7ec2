"""JSON, YAML, XML and lines of text from untrusted files: bounded in size, and nothing in them is executed."""

import codecs
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, overload
from xml.parsers import expat

import msgspec
import yaml

MAX_BYTES = 16 * 2**20      # of an XML or text file; an image's labels are some kilobytes
MAX_JSON_BYTES = 2**33      # of a data set's annotation file, held in memory; the largest known have half of it
MAX_YAML_BYTES = 2**20      # parsed slowly and into much memory; 20 000 names fit
MAX_XML_DEPTH = 32
MAX_XML_ELEMENTS = 200_000
CHECKED_AT_ONCE = 2**20     # bytes whose encoding is checked

Item = TypeVar("Item")

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LIST = msgspec.json.Decoder(list[msgspec.Raw])


class DocumentError(ValueError):
    """A file that cannot be read, or has other content than expected; where it is known, the line."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


@dataclass
class Element:
    """An XML element."""

    name: str
    line: int
    text: str = ""
    children: list["Element"] = field(default_factory=list)
    attributes: dict[str, str] = field(default_factory=dict)

    def find(self, name: str) -> "Element | None":
        """The first child of that name."""
        return next((child for child in self.children if child.name == name), None)

    def text_of(self, name: str) -> str | None:
        """The text of the first child of that name, without the space around it."""
        child = self.find(name)
        return None if child is None else child.text.strip()


def parse_json(content: bytes) -> Any:
    """The value of JSON text. Raises DocumentError."""
    try:
        return json.loads(content)
    except RecursionError:
        raise DocumentError("its JSON is nested too deeply") from None
    except ValueError as error:     # broken JSON, broken UTF-8, numbers of thousands of digits
        raise DocumentError(f"not valid JSON: {error}", getattr(error, "lineno", None)) from error


class Entries(Sequence[Any]):
    """A long JSON list that is kept as it is written; each entry is parsed when it is asked for.

    As Python objects, an annotation file of a gigabyte would take ten. Asking raises DocumentError for what only
    `json` refuses: a number of thousands of digits.
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
        """All of them as the decoder's type, which is far quicker; None where one is of another type."""
        try:
            return decoder.decode(b"[" + b",".join(self._raw) + b"]")
        except (msgspec.DecodeError, RecursionError):
            return None


def read_json_lists(file: Path) -> Any:
    """The content of a JSON file; if that is an object, its lists are `Entries`. Raises DocumentError."""
    content = read_bytes(file, MAX_JSON_BYTES)
    try:
        _check_encoding(content)
        return {key: Entries(_LIST.decode(raw)) if memoryview(raw)[:1] == b"[" else parse_json(bytes(raw))
                for key, raw in _OBJECT.decode(content).items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # `json` accepts more than the standard, such as NaN, and names the line of what it refuses.
        return parse_json(content)


def _check_encoding(content: bytes) -> None:
    """Raise UnicodeDecodeError for other bytes than UTF-8, which msgspec does not notice in what it skips."""
    decoder, view = codecs.getincrementaldecoder("utf-8")(), memoryview(content)
    for start in range(0, len(view), CHECKED_AT_ONCE):
        decoder.decode(view[start:start + CHECKED_AT_ONCE])
    decoder.decode(b"", final=True)


def read_lines(file: Path) -> list[str]:
    """The lines of a UTF-8 text file. Raises DocumentError."""
    try:
        return re.split("\r\n|\n|\r", read_bytes(file, MAX_BYTES).decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DocumentError(f"not UTF-8 text: {error}") from error


def read_yaml(file: Path) -> Any:
    """The content of a YAML file as strings, lists and mappings: `no` stays "no", 1 becomes "1".

    Raises DocumentError, also for aliases: a few lines of them can expand to more than any memory holds.
    """
    try:
        return yaml.load(read_bytes(file, MAX_YAML_BYTES).decode("utf-8-sig"), _TextLoader)
    except RecursionError:
        raise DocumentError("its YAML is nested too deeply") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise DocumentError(f"not valid YAML: {error.problem}", line) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DocumentError(f"not valid YAML: {' '.join(str(error).split())}") from error


class _TextLoader(yaml.BaseLoader):
    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases are refused", problem_mark=self.peek_event().start_mark)
        return super().compose_node(parent, index)


def read_xml(file: Path) -> Element:
    """The root element of an XML file. Raises DocumentError, also for a document type, which can define entities."""
    builder, content = _Builder(), read_bytes(file, MAX_BYTES)
    try:
        builder.parser.Parse(content, True)
    except expat.ExpatError as error:
        raise DocumentError(f"not valid XML: {expat.ErrorString(error.code)}", error.lineno) from error
    except DocumentError:
        raise
    except (LookupError, ValueError) as error:   # an encoding that expat does not know
        raise DocumentError(f"not valid XML: {error}") from error
    return builder.root.children[0]


class _Builder:
    """Builds the elements that expat reports."""

    def __init__(self) -> None:
        self.root = Element("", 0)
        self.open = [self.root]
        self.texts: list[list[str]] = [[]]      # of each open element; joined once, as growing a string copies it
        self.num_elements = 0
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.text
        self.parser.StartDoctypeDeclHandler = self.refuse

    def start(self, name: str, attributes: dict[str, str]) -> None:
        line = self.parser.CurrentLineNumber
        self.num_elements += 1
        if len(self.open) > MAX_XML_DEPTH:
            raise DocumentError("its XML is nested too deeply", line)
        if self.num_elements > MAX_XML_ELEMENTS:
            raise DocumentError(f"more than {MAX_XML_ELEMENTS:,} elements", line)
        element = Element(name, line, attributes=attributes)
        self.open[-1].children.append(element)
        self.open.append(element)
        self.texts.append([])

    def end(self, _: str) -> None:
        self.open.pop().text = "".join(self.texts.pop())

    def text(self, text: str) -> None:
        self.texts[-1].append(text)

    def refuse(self, *_: Any) -> None:
        raise DocumentError("a document type (<!DOCTYPE ...>), which can define entities, is refused",
                            self.parser.CurrentLineNumber)


def read_bytes(file: Path, limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes. Raises DocumentError."""
    try:
        if file.exists() and not file.is_file():   # reading a pipe or a device may never end
            raise DocumentError("cannot be read: not a regular file")
        with file.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            content = stream.read(size + 1) if size <= limit else b""
    except OSError as error:
        raise DocumentError(f"cannot be read: {error.strerror}") from error
    if max(size, len(content)) > limit:
        raise DocumentError(f"more than {limit:,} bytes")
    return content
