"""A stand-in for the Hugging Face Hub: the paths that its library asks for, served from memory."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from helpers.http_server import answering

COMMIT = "a" * 40          # of the main revision
OTHER_COMMIT = "b" * 40


@dataclass
class Hub:
    """Files by repository, revision and name; and what was asked for."""

    files: dict[tuple[str, str, str], bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)      # "GET owner/name/file bytes=10-"
    cut_after: int | None = None                        # bytes of a file, after which the connection breaks, once
    wrong_hash: bool = False
    url: str = ""

    def put(self, repository: str, name: str, content: bytes, revision: str = "main") -> None:
        self.files[repository, revision, name] = content


@contextmanager
def running(hub: Hub) -> Iterator[Hub]:
    with answering(_handler(hub)) as hub.url:
        yield hub


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def log_message(self, *arguments: Any) -> None:
            """Nothing."""

        def _answer(self, *, with_body: bool) -> None:
            owner, name, _, revision, file = self.path.split("?")[0].removeprefix("/").split("/", 4)
            repository = f"{owner}/{name}"
            first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
            hub.asked.append(f"{self.command} {repository}/{file}" + (f" from {first}" if first else ""))
            revision = "main" if revision == COMMIT else revision
            commit = COMMIT if revision == "main" else OTHER_COMMIT
            content = hub.files.get((repository, revision, file))
            if content is None:
                known = {(each, at) for each, at, _ in hub.files}
                reason = ("EntryNotFound" if (repository, revision) in known else
                          "RevisionNotFound" if repository in {each for each, _ in known} else "RepoNotFound")
                self.send_response(404)
                self.send_header("X-Error-Code", reason)
                self.send_header("X-Repo-Commit", commit)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            digest = hashlib.sha256(content + b"!" * hub.wrong_hash).hexdigest()
            self.send_response(206 if first else 200)
            self.send_header("ETag", f'"{digest}"')
            self.send_header("X-Repo-Commit", commit)
            self.send_header("Accept-Ranges", "bytes")
            if first:
                self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - first))
            self.end_headers()
            if with_body:
                self._send(content[first:], file)

        def _send(self, content: bytes, file: str) -> None:
            if hub.cut_after is not None and file.startswith("model"):
                content, hub.cut_after = content[:hub.cut_after], None
                self.wfile.write(content)
                self.wfile.flush()
                self.connection.close()
                return
            self.wfile.write(content)

    return Handler
