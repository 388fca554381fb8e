"""A small server that speaks the calls of the Hugging Face hub by which files are listed and read."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

_COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves `repositories`: the files, by their paths, of each `models/OWNER/NAME` or `datasets/OWNER/NAME`."""

    daemon_threads = True

    def __init__(self, repositories: Mapping[str, Mapping[str, bytes]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = repositories
        self.url = f"http://127.0.0.1:{self.server_port}"


@contextmanager
def hub_with(repositories: Mapping[str, Mapping[str, bytes]]) -> Iterator[Hub]:
    hub = Hub(repositories)
    threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(None)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def _answer(self, body: bytes | None) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        api = re.fullmatch(
            r"/api/((?:models|datasets)/[^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?", path
        )
        files = self.server.repositories.get(api[1]) if api else None
        if api and files is None:
            self._reply(404, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif api and files is not None:
            self._reply(200, json.dumps(_told(api, files, url.query, body)).encode())
        else:
            self._file(path)

    def _file(self, path: str) -> None:
        found = re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/[^/]+/(.*)", path)
        files = self.server.repositories.get(f"{(found[1] or 'models/')}{found[2]}", {}) if found else {}
        if not found or found[3] not in files:
            self._reply(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        content, status, headers = (
            files[found[3]],
            200,
            {"ETag": f'"{_oid(files[found[3]])}"', "X-Repo-Commit": _COMMIT},
        )
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(wanted[1]), min(int(wanted[2] or len(content) - 1), len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            content, status = content[first : last + 1], 206
        self._reply(status, content, headers)

    def _reply(self, status: int, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response_only(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _told(api: re.Match[str], files: Mapping[str, bytes], query: str, body: bytes | None) -> Any:
    """Returns what the hub tells of a repository, of one of its folders, or of the paths that `body` names."""
    if api[2] == "paths-info":
        text = (body or b"").decode()
        asked = json.loads(text)["paths"] if text.startswith("{") else parse_qs(text)["paths"]
        return [entry for entry in _entries(files) if entry["path"].strip("/") in [path.strip("/") for path in asked]]
    if api[2] == "tree":
        folder = (api[4] or "").strip("/")
        inside = [entry for entry in _entries(files) if not folder or entry["path"].startswith(f"{folder}/")]
        depth = folder.count("/") + bool(folder)
        everything = parse_qs(query).get("recursive", ["false"])[0].lower() == "true"
        return [entry for entry in inside if everything or entry["path"].count("/") == depth]
    names = [{"rfilename": name} for name in files]
    return {"id": api[1].partition("/")[2], "sha": _COMMIT, "siblings": names, "private": False, "tags": []}


def _entries(files: Mapping[str, bytes]) -> list[dict[str, Any]]:
    folders = sorted({name.rpartition("/")[0] for name in files} - {""})
    return [
        *({"type": "directory", "path": folder, "oid": _COMMIT, "size": 0} for folder in folders),
        *({"type": "file", "path": name, "oid": _oid(data), "size": len(data)} for name, data in files.items()),
    ]
