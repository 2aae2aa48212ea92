"""One page, served on the loopback interface while a block runs."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

from ..run.folder import RunFolder
from ..run.parameters import Parameters
from ..terminal.console import log
from .page import EVERY, SCRIPT, Live

P = TypeVar("P", bound=Parameters)

#: Nothing is fetched from elsewhere; the only script allowed is the one that updates the page.
_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; connect-src 'self'; "
    f"script-src 'sha256-{base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()}'"
)


@contextmanager
def serving(folder: RunFolder, port: int = 0) -> Iterator[str]:
    """Serve the page of a run on 127.0.0.1 while the block runs.

    Args:
        folder: of the run; it may still be empty.
        port: to listen on; 0: a free one.

    Yields:
        The address.

    Raises:
        OSError: the port is taken.
    """
    server = ThreadingHTTPServer(("127.0.0.1", port), _handler(folder))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="mtd-page", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def shown(folder: RunFolder, parameters: P) -> Iterator[P]:
    """Serve the page of a run while it goes on, and log its address.

    Args:
        folder: of the run.
        parameters: how it runs.

    Yields:
        The parameters, with checkpoints as often as the page looks for them.
    """
    with serving(folder) as address:
        log(f"the run is shown at {address}")
        often: dict[str, Any] = {"checkpoint_every": min(EVERY, parameters.checkpoint_every)}
        yield replace(parameters, **often)


def _handler(folder: RunFolder) -> type[BaseHTTPRequestHandler]:
    """Answers for one page and nothing else."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """The page. Requests for another host name are refused: through such a name, pages of other sites could read it (DNS rebinding)."""
            host = self.headers.get("Host", "").rsplit(":", 1)[0]
            if self.path != "/" or host not in ("127.0.0.1", "localhost"):
                self.send_error(404)
                return
            try:
                page = Live(folder).page
            except OSError:  # the run is replacing its files
                self.send_error(503)
                return
            self.send_response(200)
            for name, value in {
                "Content-Type": "text/html; charset=utf-8",
                "Content-Length": str(len(page)),
                "Cache-Control": "no-store",
                "Content-Security-Policy": _POLICY,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *args: object) -> None:
            """Requests are not logged."""

    return Handler
