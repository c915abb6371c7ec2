"""What is known about a model, apart from its config."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from deformable_detr.detections import Postprocessing
from deformable_detr.preprocessing import Preprocessing
from deformable_detr.text import CONTROL_CHARACTER


@dataclass(frozen=True)
class ModelInfo:
    """What is needed to use weights, apart from their config.

    `names` and `category_ids` have one entry for each class index; the ids are those of the data set's annotations.
    `provenance` is text: license, data, command and versions. The last two fields are about the file that was read and
    are not written. Raises ValueError if they do not fit together.
    """

    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    provenance: dict[str, str] = field(default_factory=dict)
    postprocessing: Postprocessing = field(default_factory=Postprocessing)
    dialect: str = "native"                 # whose names the file has
    unused: tuple[str, ...] = ()            # keys of the file that no model needs

    def __post_init__(self) -> None:
        check_types("names", self.names, str)
        check_types("category_ids", self.category_ids, int)
        check_types("provenance", [*self.provenance, *self.provenance.values()], str)
        for name in self.names:
            if CONTROL_CHARACTER.search(name):   # a terminal would obey it
                raise ValueError(f"names: expected no control characters, got {name!r:.100}")
        if len(self.names) != len(self.category_ids):
            raise ValueError("names and category_ids: expected one of each a class, "
                             f"got {len(self.names)} and {len(self.category_ids)}")
        if len(set(self.category_ids)) != len(self.category_ids):
            raise ValueError("category_ids: expected a different id for each class")


def check_types(field_name: str, entries: Iterable[Any], kind: type) -> None:
    """Raise ValueError for an entry of another type, a subclass (True for 1) too."""
    entries = list(entries)
    if not all(type(entry) is kind for entry in entries):
        raise ValueError(f"{field_name}: expected {kind.__name__} only, got {entries!r:.200}")
