"""A proxy before a store, which answers as stores and networks do on bad days."""

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

HANGS, RESET, SHORT, LOST, GONE = "hangs", "reset", "short", "lost", "gone"
"""It accepts and answers nothing; closes the connection; breaks an answer off; does what is asked and closes the
connection; has no such bucket."""

_NO_BUCKET = b"<Error><Code>NoSuchBucket</Code><Message>The specified bucket does not exist</Message></Error>"


class Proxy(ThreadingHTTPServer):
    """Passes requests on to the store at `upstream`, except for what `faults` and `always` say."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream).netloc
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.faults: list[str | int] = []
        """Of the next requests, the first first: one of the words above, or a status."""
        self.always: str | int | None = None
        """Of all requests, until it is taken away."""
        self.seen: list[str] = []
        """What was asked for, as `METHOD path`."""

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that are killed are no news."""


@contextmanager
def proxy_before(upstream: str) -> Iterator[Proxy]:
    proxy = Proxy(upstream)
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.always = None
        proxy.shutdown()
        proxy.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, *_: object) -> None:
        pass

    def pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen.append(f"{self.command} {self.path}")
        fault = self.server.faults.pop(0) if self.server.faults else self.server.always
        while fault == HANGS and self.server.always == HANGS:
            time.sleep(0.05)
        if fault in (HANGS, RESET):
            self.close_connection = True
            return
        if fault == GONE:
            self.reply(404, [("Content-Type", "application/xml")], _NO_BUCKET)
            return
        if isinstance(fault, int):
            self.reply(fault, [("Content-Type", "application/xml")], b"<Error><Code>Slow</Code></Error>")
            return
        upstream = http.client.HTTPConnection(self.server.upstream)
        upstream.request(self.command, self.path, body, dict(self.headers.items()))
        answer = upstream.getresponse()
        content = answer.read()
        upstream.close()
        if fault == LOST:
            self.close_connection = True
            return
        headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in _OWN]
        length = int(answer.getheader("Content-Length") or len(content)) if self.command == "HEAD" else len(content)
        self.reply(answer.status, headers, content, length, broken=fault == SHORT)

    def reply(
        self,
        status: int,
        headers: list[tuple[str, str]],
        content: bytes,
        length: int | None = None,
        broken: bool = False,
    ) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if broken else content)
        self.close_connection |= broken

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = pass_on


_OWN = ("content-length", "transfer-encoding", "connection")
