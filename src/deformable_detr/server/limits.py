"""How much a client may ask for."""

from dataclasses import dataclass, fields

MAX_TOP_K = 300         # detections of an image in an answer


@dataclass(frozen=True)
class Limits:
    """The bounds of a server. Raises ValueError for one that is not positive."""

    upload_bytes: int = 32 * 2**20      # of a request's body
    pixels: int = 50_000_000            # of an image, checked before it is decoded
    pictures: int = 16                  # of a request
    queue: int = 64                     # images of all requests that wait or are worked on
    seconds: float = 30                 # from the whole request to its answer
    transfer_seconds: float = 60        # for a request's body, and for a client to read its answer
    idle_seconds: float = 10            # for a request's head, and between two pieces of a body
    head_bytes: int = 16 * 2**10
    connections: int = 512
    held_bytes: int = 256 * 2**20       # of the bodies of all requests together

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if not value > 0:
                raise ValueError(f"{each.name}: expected a positive number, got {value}")
        if self.pictures > self.queue:
            raise ValueError(f"queue: expected at least as many as the images of a request ({self.pictures}), "
                             f"got {self.queue}")
        if self.upload_bytes > self.held_bytes:
            raise ValueError(f"upload_bytes: expected at most the bytes of all requests together "
                             f"({self.held_bytes:,}), got {self.upload_bytes:,}")
