"""A real collector of OpenTelemetry: rotel, which prints the spans that it receives."""

import os
import re
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.integration.home import free_port

WITHIN_S = 30.0
POLL_S = 0.02
PROGRAM = Path(sysconfig.get_path("purelib")) / "rotel" / "rotel-agent"
SPAN = re.compile(r"^Span #\d+\n(.*?)(?=^Span #|^ResourceSpans #|^ScopeSpans #|\Z)", re.MULTILINE | re.DOTALL)
FIELD = re.compile(r"^ +(Trace ID|Parent ID|ID|Name|Kind) +: (\S.*)?$", re.MULTILINE)
ATTRIBUTE = re.compile(r"^ +-> (\S+): \w+\((.*)\)$", re.MULTILINE)
SERVICE = re.compile(r"-> service\.name: Str\((.*?)\)")


@dataclass(frozen=True)
class ReceivedSpan:
    service: str
    name: str
    kind: str
    trace: str
    id: str
    parent: str
    attributes: dict[str, str]


@dataclass(frozen=True)
class RotelCollector:
    """A running collector and its log."""

    grpc_url: str
    http_url: str
    log: Path

    @property
    def spans(self) -> list[ReceivedSpan]:
        """All spans received so far."""
        return [span for block in self.log.read_text().split("ResourceSpans #")[1:] for span in _spans(block)]

    def until(self, condition: Callable[[list[ReceivedSpan]], bool]) -> list[ReceivedSpan]:
        """Return the spans once `condition` holds for them. Raises AssertionError after WITHIN_S."""
        deadline = time.monotonic() + WITHIN_S
        while not condition(spans := self.spans):
            assert time.monotonic() < deadline, self.log.read_text()[-5000:]
            time.sleep(POLL_S)
        return spans


def _spans(block: str) -> Iterator[ReceivedSpan]:
    found = SERVICE.search(block)
    for match in SPAN.finditer(block):
        fields = {name: value or "" for name, value in FIELD.findall(match[1])}
        yield ReceivedSpan(
            service=found[1] if found else "",
            name=fields["Name"],
            kind=fields["Kind"].removeprefix("SPAN_KIND_").lower(),
            trace=fields["Trace ID"],
            id=fields["ID"],
            parent=fields["Parent ID"],
            attributes=dict(ATTRIBUTE.findall(match[1])),
        )


@contextmanager
def rotel(directory: Path, grpc_port: int | None = None) -> Iterator[RotelCollector]:
    """Run a collector until the end of the block; the block begins when it listens."""
    grpc, http = grpc_port or free_port(), free_port()
    PROGRAM.chmod(0o755)  # the wheel has it without the permission
    log = directory / "rotel.log"
    command = [
        *(PROGRAM, "start", "--exporter", "blackhole", "--pid-file", directory / "rotel.pid"),
        *("--debug-log", "traces", "--debug-log-verbosity", "detailed"),
        *("--otlp-grpc-endpoint", f"127.0.0.1:{grpc}", "--otlp-http-endpoint", f"127.0.0.1:{http}"),
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(map(str, command)), env={"PATH": os.defpath}, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        running = RotelCollector(f"http://127.0.0.1:{grpc}", f"http://127.0.0.1:{http}", log)
        deadline = time.monotonic() + WITHIN_S
        while "Starting Rotel" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(POLL_S)
        yield running
    finally:
        process.terminate()
        process.wait()
