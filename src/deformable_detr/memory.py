"""One error for memory that runs out."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_memory_error() -> Iterator[None]:
    """MemoryError for whatever PyTorch raises if memory runs out; on the CPU it has no error of its own for that."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error):
            raise MemoryError("out of memory; a smaller size of the preprocessing needs less") from error
        raise
    except MemoryError as error:
        raise MemoryError("out of memory; a smaller size of the preprocessing needs less") from error
