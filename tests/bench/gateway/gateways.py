"""Start each gateway before an engine, on one core."""

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from tests.bench.figures import Cost, cores, cost
from tests.bench.gateway.install import NotInstalled, installed, nginx
from tests.bench.queen import MODEL, pool, queen
from tests.integration.home import free_port

READY_WITHIN_S = 90.0
STOP_WITHIN_S = 10.0
SLOTS = 256
NGINX = """
daemon off; worker_processes 1; pid {directory}/pid; error_log stderr error;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory};
  uwsgi_temp_path {directory}; scgi_temp_path {directory};
  keepalive_requests 1000000;
  upstream engine {{ server {address}; keepalive 128; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
"""
LITELLM = {"model": f"openai/{MODEL}", "api_key": "none"}


@dataclass(frozen=True)
class Gateway:
    """A running gateway. `pid` is its main process; 0 is none: the engine itself."""

    name: str
    port: int
    pid: int = 0

    @property
    def cost(self) -> Cost:
        """CPU time and resident memory of all its processes so far."""
        costs = [cost(pid) for pid in _family(self.pid)] if self.pid else []
        return Cost(sum(each.cpu_s for each in costs), sum(each.rss_mb for each in costs))


def _family(pid: int) -> list[int]:
    """Return `pid` and its descendants."""
    children = Path(f"/proc/{pid}/task").glob("*/children")
    return [pid, *(each for file in children for child in file.read_text().split() for each in _family(int(child)))]


def _port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


@contextmanager
def direct(url: str) -> Iterator[Gateway]:
    """The engine without a gateway."""
    yield Gateway("direct", _port_of(url))


@contextmanager
def nginx_proxy(url: str) -> Iterator[Gateway]:
    """nginx with one worker and kept connections to the engine."""
    program, port = nginx(), free_port()
    with tempfile.TemporaryDirectory(prefix="bench-nginx-") as directory:
        # its workers run as nobody
        Path(directory).chmod(0o777)
        config = Path(directory) / "nginx.conf"
        config.write_text(NGINX.format(directory=directory, address=url.removeprefix("http://"), port=port))
        words = [str(program), "-p", directory, "-e", "stderr", "-c", str(config)]
        with _running("nginx", words, port, "/health") as running:
            yield running


@contextmanager
def sglang_router(url: str) -> Iterator[Gateway]:
    """sglang's router in Rust, with its defaults except for the policy and the log level."""
    port = free_port()
    words = [str(installed("sglang-router", "sglang-router")), "launch", "--worker-urls", url, "--port", str(port)]
    words += ["--policy", "round_robin", "--log-level", "error", "--prometheus-port", str(free_port())]
    with _running("sglang-router", words, port, "/readiness") as running:
        yield running


@contextmanager
def litellm(url: str) -> Iterator[Gateway]:
    """LiteLLM's proxy with one worker."""
    program, port = installed("litellm", "litellm"), free_port()
    with tempfile.TemporaryDirectory(prefix="bench-litellm-") as directory:
        config = Path(directory) / "config.yaml"
        model = {"model_name": MODEL, "litellm_params": {**LITELLM, "api_base": f"{url}/v1"}}
        config.write_text(json.dumps({"model_list": [model]}))
        words = [str(program), "--config", str(config), "--port", str(port), "--num_workers", "1"]
        offline = {
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        }
        with _running("LiteLLM", words, port, "/health/liveliness", offline) as running:
            yield running


@contextmanager
def queen_rbee(url: str) -> Iterator[Gateway]:
    """queen-rbee in HOME_PROFILE, with its default log level."""
    with queen(pool(url, SLOTS), ORCHD_ADMISSION_CAPACITY="1000", RUST_LOG="info") as running:
        yield Gateway("queen-rbee", running.port, running.process.pid)


GATEWAYS: Mapping[str, Callable[[str], AbstractContextManager[Gateway]]] = {
    "direct": direct,
    "nginx": nginx_proxy,
    "sglang-router": sglang_router,
    "litellm": litellm,
    "queen-rbee": queen_rbee,
}


@contextmanager
def _running(
    name: str, words: list[str], port: int, path: str, more: Mapping[str, str] | None = None
) -> Iterator[Gateway]:
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            words,
            env={**os.environ, **(more or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        os.sched_setaffinity(process.pid, {cores()[0]})
        try:
            if not _answers(process, port, path):
                log.seek(0)
                raise NotInstalled(f"{name} does not start: {log.read()[-500:].decode(errors='replace')}")
            yield Gateway(name, port, process.pid)
        finally:
            _end(process)


def _answers(process: subprocess.Popen[bytes], port: int, path: str) -> bool:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return True
        except (OSError, HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.1)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and those that it started."""
    family = _family(process.pid)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_WITHIN_S)
    for pid in family:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
