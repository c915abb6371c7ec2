"""Where weights come from: the package, a path, or the Hugging Face Hub."""

import json
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any

from deformable_detr.weights import WeightsError
from deformable_detr.weights.hub import PREFIX, fetch
from deformable_detr.weights.names import ALIASES, NAMED, named

DEMO = "demo"
EXPECTED = f'"{DEMO}", a name that `ddetr weights` lists, "{PREFIX}owner/name", a file or a folder'


def check_exists(weights: str | Path) -> None:
    """Raise WeightsError for a path where nothing is, or a name that nothing has; what the Hub has is not checked."""
    if weights != DEMO and not _is_remote(weights) and not Path(weights).exists():
        others = [DEMO, *ALIASES, *NAMED]
        similar = get_close_matches(str(weights), others, n=1)
        hint = f"; did you mean {similar[0]!r}?" if similar else ""
        raise WeightsError(f"weights: expected {EXPECTED}, got {str(weights)!r}{hint}")


def find_weights(weights: str | Path, *, show_bars: bool = False) -> Path:
    """The file or folder of "demo", a short name, "hf:owner/name[@revision]", or a path.

    What is on the Hub is fetched into its cache; `show_bars` shows how far that is. Raises WeightsError.
    """
    if weights == DEMO:
        return _packaged()
    if not _is_remote(weights):
        check_exists(weights)
        return Path(weights)
    known = named(str(weights))
    if known is None:
        return fetch(str(weights).removeprefix(PREFIX), show_bars=show_bars)
    address = known.repository + (f"@{known.revision}" if known.revision else "")
    return fetch(address, sha256=known.sha256, show_bars=show_bars)


def packaged_weights() -> Path | None:
    """The weights that came with the package, None for a copy without them."""
    path = _assets() / "demo.safetensors"
    return path if path.is_file() else None


def packaged_config() -> dict[str, Any]:
    """The config in the header of the packaged weights, read without torch; empty for a copy without them."""
    path = packaged_weights()
    if path is None:
        return {}
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return json.loads(header["__metadata__"]["config"])


def packaged_images() -> list[Path]:
    """The images that came with the package."""
    return sorted((_assets() / "pictures").glob("*.jpg"))


def _is_remote(weights: str | Path) -> bool:
    """A file or folder of that name comes first."""
    return isinstance(weights, str) and (weights.startswith(PREFIX) or (
        named(weights) is not None and not Path(weights).exists()))


def _assets() -> Path:
    return Path(str(resources.files("deformable_detr"))) / "assets"


def _packaged() -> Path:
    path = packaged_weights()
    if path is None:
        raise WeightsError(f"weights: this copy of deformable-detr has no {DEMO!r} weights; give the path of a file")
    return path
