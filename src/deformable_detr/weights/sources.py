"""Where weights come from: the package, a file, or the Hugging Face Hub."""

from importlib import resources
from pathlib import Path

from deformable_detr.weights import WeightsError

DEMO = "demo"
HUB_PREFIX = "hf:"
HUB_FILE = "model.safetensors"


def find_weights(weights: str | Path) -> Path:
    """The file that "demo", "hf:owner/name" or a path stands for. Raises WeightsError where it cannot be had."""
    if weights == DEMO:
        return _packaged()
    if isinstance(weights, str) and weights.startswith(HUB_PREFIX):
        return _from_hub(weights.removeprefix(HUB_PREFIX))
    return Path(weights)


def packaged_weights() -> Path | None:
    """The weights that came with the package, None for a copy without them."""
    path = _assets() / "demo.safetensors"
    return path if path.is_file() else None


def packaged_images() -> list[Path]:
    """The images that came with the package."""
    return sorted((_assets() / "pictures").glob("*.jpg"))


def _assets() -> Path:
    return Path(str(resources.files("deformable_detr"))) / "assets"


def _packaged() -> Path:
    path = packaged_weights()
    if path is None:
        raise WeightsError(f"weights: this copy of deformable-detr carries no {DEMO!r} weights; "
                           "give the path of a file")
    return path


def _from_hub(repository: str) -> Path:
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise WeightsError(f"{HUB_PREFIX}{repository}: needs `pip install huggingface_hub`") from None
    try:
        return Path(hf_hub_download(repository, HUB_FILE))
    except (OSError, ValueError) as error:   # no such repository or file, no network, a malformed name
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{HUB_PREFIX}{repository}: cannot fetch {HUB_FILE} ({reason})") from None
