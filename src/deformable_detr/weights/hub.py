"""Weights from the Hugging Face Hub: the files of a model, in the Hub's own cache."""

import hashlib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deformable_detr.weights import WeightsError
from deformable_detr.weights.folder_files import CONFIG_FILE, PREPROCESSOR_FILE, WEIGHTS_FILES, part_names

logger = logging.getLogger(__name__)

PREFIX = "hf:"
REPOSITORY = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?", re.ASCII)
SHA256 = re.compile(r"[0-9a-f]{64}")
AT_ONCE = 2**20     # bytes that are hashed


def fetch(address: str, *, sha256: str | None = None, show_bars: bool = False) -> Path:
    """The folder with the files of "owner/name" or "owner/name@revision".

    What is in the cache is fetched again only if it has changed; without a network the cache serves alone. An
    interrupted download is continued. Raises WeightsError if there are no such weights, they cannot be fetched, or
    their content is not what the Hub, or `sha256`, says.
    """
    match = REPOSITORY.fullmatch(address)
    if match is None or ".." in address:
        raise WeightsError(f'{PREFIX}{address}: expected "owner/name" or "owner/name@revision"')
    repository, revision = match["id"], match["revision"]
    with _one_error(address):
        problem = _why_unreachable(repository, revision)
        download = _Download(repository, revision, problem, sha256, show_bars)
        found = [download.optional(CONFIG_FILE), download.optional(PREPROCESSOR_FILE), *download.weights()]
    folders = {path.parent for path in found if path is not None}
    if len(folders) != 1:
        raise WeightsError(f"{PREFIX}{address}: the repository changed while it was fetched; try again")
    return folders.pop()


def cached(repository: str) -> bool:
    """Whether weights of a repository are in the cache."""
    from huggingface_hub import try_to_load_from_cache

    return any(isinstance(try_to_load_from_cache(repository, name), str) for name in WEIGHTS_FILES)


class _Download:
    """The files of one repository."""

    def __init__(self, repository: str, revision: str | None, problem: str | None, sha256: str | None,
                 show_bars: bool) -> None:
        self.repository, self.revision, self.problem, self.sha256 = repository, revision, problem, sha256
        self.show_bars = show_bars

    def optional(self, name: str) -> Path | None:
        """A small file, None if the repository has none of this name."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        try:
            return Path(hf_hub_download(self.repository, name, revision=self.revision,
                                        local_files_only=self.problem is not None,
                                        tqdm_class=None if self.show_bars else _silent_bar()))
        except EntryNotFoundError:
            return None

    def weights(self) -> list[Path]:
        """The files with the tensors, checked."""
        for name in WEIGHTS_FILES:
            whole = self._checked(name)
            if whole:
                return [whole]
            index = self.optional(f"{name}.index.json")
            if index:
                parts = [self._checked(part) for part in part_names(index)]
                return [index, *(part for part in parts if part is not None)]
        if self.problem is not None:
            raise WeightsError(f"{PREFIX}{self.repository}: the Hub cannot be reached ({self.problem}), and nothing of "
                               "it is in the cache: fetch it once with a network, or give the path of a file")
        raise WeightsError(f"{PREFIX}{self.repository}: expected {' or '.join(WEIGHTS_FILES)}, found neither")

    def _checked(self, name: str) -> Path | None:
        """A file of weights, whose content is compared with what the Hub says when it was fetched just now."""
        expected = self.sha256 or self._reported_sha256(name)
        before = self._in_cache(name)
        if before is None and self.problem is None:
            logger.info("fetching %s of %s", name, self.repository)
        path = self.optional(name)
        if path is None or path == before or expected is None:
            return path
        with path.open("rb") as file:
            content = hashlib.sha256()
            while part := file.read(AT_ONCE):
                content.update(part)
        if content.hexdigest() != expected:
            path.resolve().unlink()
            path.unlink(missing_ok=True)
            raise WeightsError(f"{PREFIX}{self.repository}: {name} is damaged: expected the SHA-256 {expected}, got "
                               f"{content.hexdigest()}; it was removed, try again")
        return path

    def _in_cache(self, name: str) -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.repository, name, revision=self.revision)
        return Path(found) if isinstance(found, str) else None

    def _reported_sha256(self, name: str) -> str | None:
        """The hash that the Hub has of a large file."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.errors import EntryNotFoundError

        if self.problem is not None:
            return None
        try:
            etag = get_hf_file_metadata(hf_hub_url(self.repository, name, revision=self.revision)).etag
        except EntryNotFoundError:
            return None
        return etag if etag and SHA256.fullmatch(etag) else None


def _why_unreachable(repository: str, revision: str | None) -> str | None:
    """None if the Hub answers; asked once, as `hf_hub_download` would try for half a minute."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        get_hf_file_metadata(hf_hub_url(repository, CONFIG_FILE, revision=revision))
    except EntryNotFoundError:
        return None
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise
    except Exception as error:   # no network: errors of several libraries
        return " ".join(str(error).split())[:150] or type(error).__name__
    return None


@contextmanager
def _one_error(address: str) -> Iterator[None]:
    """WeightsError in one line for whatever the Hub's library raises."""
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except WeightsError:
        raise
    except GatedRepoError:
        reason = "it is open to members only: log in with `hf auth login`"
    except RevisionNotFoundError:
        reason = "no such revision"
    except RepositoryNotFoundError:
        reason = "no such repository, or a private one: see `hf auth login`"
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
    except Exception as error:   # of the library that speaks HTTP
        reason = f"the connection failed ({' '.join(str(error).split())[:150]})"
    else:
        return
    raise WeightsError(f"{PREFIX}{address}: cannot be fetched: {reason}")


def _silent_bar() -> Any:
    """A progress bar that shows nothing."""
    from tqdm import tqdm

    class Silent(tqdm):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            options.pop("name", None)   # of the Hub's own class of bars
            super().__init__(*arguments, **{**options, "disable": True})

    return Silent
