"""Where weights come from: the package, a file, or the Hugging Face Hub."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

from deformable_detr.weights import WeightsError

DEMO = "demo"
HUB_PREFIX = "hf:"
HUB_FILE = "model.safetensors"


def check_exists(weights: str | Path) -> None:
    """Raise WeightsError for the path of a file that does not exist; what the Hub has is not checked."""
    if not _is_from_hub(weights) and weights != DEMO and not Path(weights).is_file():
        raise WeightsError(f'weights: expected "{DEMO}", "{HUB_PREFIX}owner/name" or a file, got {str(weights)!r}')


def find_weights(weights: str | Path) -> Path:
    """The file of "demo", "hf:owner/name" or a path. Raises WeightsError if it cannot be fetched."""
    if weights == DEMO:
        return _packaged()
    if _is_from_hub(weights):
        return _from_hub(str(weights).removeprefix(HUB_PREFIX))
    return Path(weights)


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


def _is_from_hub(weights: str | Path) -> bool:
    return isinstance(weights, str) and weights.startswith(HUB_PREFIX)


def _assets() -> Path:
    return Path(str(resources.files("deformable_detr"))) / "assets"


def _packaged() -> Path:
    path = packaged_weights()
    if path is None:
        raise WeightsError(f"weights: this copy of deformable-detr has no {DEMO!r} weights; give the path of a file")
    return path


def _from_hub(repository: str) -> Path:
    """The file, from the Hub's own cache if it has not changed or the Hub cannot be reached."""
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    except ImportError:
        raise WeightsError(f"{HUB_PREFIX}{repository}: needs `pip install huggingface_hub`") from None
    problem: Exception | None = None
    try:
        get_hf_file_metadata(hf_hub_url(repository, HUB_FILE))   # hf_hub_download would try for half a minute
    except Exception as error:   # no network, no such file, a malformed name: errors of several libraries
        problem = error
    try:
        return Path(hf_hub_download(repository, HUB_FILE, local_files_only=problem is not None))
    except (OSError, ValueError) as error:
        reason = (str(problem or error).strip().splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{HUB_PREFIX}{repository}: cannot fetch {HUB_FILE} ({reason})") from None
