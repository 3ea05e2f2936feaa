"""Web pages in a real browser: a site that serves a page and takes its report, and Debian's chromium, headless.

Both belong to the block that opened them: the browser is ended by process group, the site's thread stopped.
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
    """The browser's program, if it is here."""
    return shutil.which("chromium")


@dataclass
class Site:
    """A web site under any name: `script` is run by its page, which posts what it finds to the site."""

    port: int = field(default_factory=free_port)
    script: str = ""
    reports: "queue.Queue[Any]" = field(default_factory=queue.Queue)

    def handler(self) -> type[BaseHTTPRequestHandler]:
        """The handler of its requests."""
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._say(f"<!doctype html><meta charset=utf-8><body><script>{site.script}</script>".encode())

            def do_POST(self) -> None:
                site.reports.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self._say(b"")

            def _say(self, content: bytes) -> None:
                self.send_response(200)
                self.send_header("content-type", "text/html")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None: ...

        return Handler


@contextmanager
def site() -> Iterator[Site]:
    """A site that answers on loopback."""
    opened = Site()
    with ThreadingHTTPServer(("127.0.0.1", opened.port), opened.handler()) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield opened
        finally:
            server.shutdown()
            thread.join()


def command(directory: Path, *more: str) -> list[str]:
    """How the browser is started; all names but localhost lead to loopback."""
    program = chromium()
    assert program
    return [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage",
            f"--user-data-dir={directory}", "--host-resolver-rules=MAP * 127.0.0.1", *more]  # fmt: skip


def visit(opened: Site, name: str, script: str, directory: Path) -> Any:
    """What `script` reports from the page of `opened` at http://`name`; it calls `report(value)` once."""
    opened.script = (
        f"function report(value) {{ fetch('/', {{method: 'POST', body: JSON.stringify(value)}}) }}\n{script}"
    )
    words = command(directory, f"http://{name}:{opened.port}/")
    with (directory / "log").open("ab") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
    try:
        return opened.reports.get(timeout=WITHIN_S)
    except queue.Empty:
        raise AssertionError(f"no report within {WITHIN_S:g} s:\n{(directory / 'log').read_text()[-3000:]}") from None
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def text_of(url: str, directory: Path) -> str:
    """What a browser shows for `url`."""
    words = command(directory, "--dump-dom", url)
    return subprocess.run(words, capture_output=True, text=True, timeout=WITHIN_S, check=True).stdout
