"""The processes of a training as their launcher (torchrun, accelerate) describes them in the environment."""

import os


def is_first_process() -> bool:
    """True in a training of one process, and in the first of several: the one that writes files and prints."""
    return os.environ.get("RANK", "0") == "0"


def num_processes() -> int:
    """How many processes share the training."""
    return int(os.environ.get("WORLD_SIZE", "1"))
