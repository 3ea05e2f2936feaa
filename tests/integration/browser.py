"""Open web pages in headless Chromium, from a site that serves a script and receives its report.

`visit` kills the browser's process group; `site` stops its own thread.
"""

import json
import os
import queue
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.integration.home import free_port

WITHIN_S = 60.0


def chromium() -> str | None:
    """Return the path of Chromium, or None if it is not installed."""
    return shutil.which("chromium")


@dataclass
class Site:
    """A web site. Its page runs `script`, which posts its result to the site; `reports` receives it."""

    port: int = field(default_factory=free_port)
    script: str = ""
    reports: "queue.Queue[Any]" = field(default_factory=queue.Queue)

    def handler(self) -> type[BaseHTTPRequestHandler]:
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._respond(f"<!doctype html><meta charset=utf-8><body><script>{site.script}</script>".encode())

            def do_POST(self) -> None:
                site.reports.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self._respond(b"")

            def _respond(self, content: bytes) -> None:
                self.send_response(200)
                self.send_header("content-type", "text/html")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None: ...

        return Handler


@contextmanager
def site() -> Iterator[Site]:
    served_site = Site()
    with ThreadingHTTPServer(("127.0.0.1", served_site.port), served_site.handler()) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield served_site
        finally:
            server.shutdown()
            thread.join()


def command(directory: Path, *more: str) -> list[str]:
    """Return the browser's command line. It resolves every host name to loopback."""
    program = chromium()
    assert program
    return [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage",
            f"--user-data-dir={directory}", "--host-resolver-rules=MAP * 127.0.0.1", *more]  # fmt: skip


def visit(served_site: Site, name: str, script: str, directory: Path) -> Any:
    """Open http://`name` in the browser, run `script` there, and return the value it passes to `report()`."""
    served_site.script = (
        f"function report(value) {{ fetch('/', {{method: 'POST', body: JSON.stringify(value)}}) }}\n{script}"
    )
    words = command(directory, f"http://{name}:{served_site.port}/")
    with (directory / "log").open("ab") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
    try:
        return served_site.reports.get(timeout=WITHIN_S)
    except queue.Empty:
        raise AssertionError(
            f"no report from the page within {WITHIN_S:g} s:\n{(directory / 'log').read_text()[-3000:]}"
        ) from None
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def text_of(url: str, directory: Path) -> str:
    """Return the DOM that the browser shows for `url`, as text."""
    words = command(directory, "--dump-dom", url)
    return subprocess.run(words, capture_output=True, text=True, timeout=WITHIN_S, check=True).stdout
