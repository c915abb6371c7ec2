"""What can be wrong with a video, and the libraries that are optional."""

from types import ModuleType

from deformable_detr.text import printable


class VideoError(ValueError):
    """A video that cannot be read or written; one line, which names it."""


def import_av(name: str) -> ModuleType:
    """PyAV. Raises VideoError, which names the video, where it is not installed."""
    try:
        import av
        import av.logging
    except ImportError as error:
        raise VideoError(f"{printable(name)}: videos need PyAV ({error}): "
                         "pip install 'deformable-detr[video]'") from error
    return av


def reason_of(error: Exception) -> str:
    """What FFmpeg says, without its numbers and names of functions."""
    if type(error).__name__ == "ExitError":     # how PyAV ends what takes too long
        return "nothing came for too long"
    return printable(" ".join((getattr(error, "strerror", None) or str(error)).split()))
