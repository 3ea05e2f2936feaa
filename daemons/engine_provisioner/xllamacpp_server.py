"""Serves a model with xllamacpp's HTTP server, told by llama-server's own options.

Run as a script by the command lines that `command` makes: `python3 -I xllamacpp_server.py --site DIRECTORY …`, where
DIRECTORY is the private install. The server lives in this process; its log, errors included, is on standard error.
"""

import argparse
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

FAILED = 1
DEVICES_MAX = 128
"""How many shares xllamacpp wants."""


@dataclass(frozen=True)
class Option:
    """One option: its spellings as llama-server has them, the parameter it sets, and how its text is read; without
    `read` it takes no argument and sets `value`."""

    names: tuple[str, ...]
    parameter: str
    read: Callable[[str], Any] | None = None
    value: bool = True


def shares(text: str) -> list[float]:
    """The numbers of --tensor-split, and 0 for each GPU that there might be besides."""
    given = [float(part) for part in text.split(",")]
    return given + [0.0] * (DEVICES_MAX - len(given))


OPTIONS = (
    Option(("-m", "--model"), "model.path", str),
    Option(("-a", "--alias"), "model_alias", str),
    Option(("--host",), "hostnames", lambda text: [text]),
    Option(("--port",), "port", int),
    Option(("-c", "--ctx-size"), "n_ctx", int),
    Option(("-np", "--parallel"), "n_parallel", int),
    Option(("-b", "--batch-size"), "n_batch", int),
    Option(("-ub", "--ubatch-size"), "n_ubatch", int),
    Option(("-n", "--predict", "--n-predict"), "n_predict", int),
    Option(("-t", "--threads"), "cpuparams.n_threads", int),
    Option(("-tb", "--threads-batch"), "cpuparams_batch.n_threads", int),
    Option(("--threads-http",), "n_threads_http", int),
    Option(("-ngl", "--gpu-layers", "--n-gpu-layers"), "n_gpu_layers", int),
    Option(("-ts", "--tensor-split"), "tensor_split", shares),
    Option(("-mg", "--main-gpu"), "main_gpu", int),
    Option(("-cram", "--cache-ram"), "cache_ram_mib", int),
    Option(("-lv", "--verbosity", "--log-verbosity"), "verbosity", int),
    Option(("-cb", "--cont-batching"), "cont_batching"),
    Option(("-nocb", "--no-cont-batching"), "cont_batching", value=False),
    Option(("--metrics",), "endpoint_metrics"),
    Option(("--slots",), "endpoint_slots"),
    Option(("--no-ui", "--no-webui"), "ui", value=False),
    Option(("--offline",), "offline"),
    Option(("--embedding", "--embeddings"), "embedding"),
    Option(("--no-warmup",), "warmup", value=False),
    Option(("-kvu", "--kv-unified"), "kv_unified"),
    Option(("--swa-full",), "swa_full"),
    Option(("--jinja",), "use_jinja"),
)


class Help(argparse.Action):
    """--help as llama-server prints it: each option at the beginning of its line."""

    def __call__(self, parser: argparse.ArgumentParser, *_rest: object) -> None:
        """Print and exit."""
        for option in OPTIONS:
            print(", ".join(option.names), "" if option.read is None else "VALUE")  # noqa: T201
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """Reads OPTIONS; anything else ends the process with status 2 and a line that names it."""
    made = argparse.ArgumentParser("llama-server", add_help=False, allow_abbrev=False)
    made.add_argument("--site", required=True)
    made.add_argument("--version", action="store_true")
    made.add_argument("-h", "--help", action=Help, nargs=0)
    for option in OPTIONS:
        if option.read is None:
            made.add_argument(
                *option.names, dest=option.parameter, action="store_const", const=option.value, default=None
            )
        else:
            made.add_argument(*option.names, dest=option.parameter, type=option.read)
    return made


def set_parameter(parameters: Any, name: str, value: Any) -> None:
    """Set `a.b` on `parameters`; a text where releases differ in whether they have one text or a set."""
    *path, last = name.split(".")
    for part in path:
        parameters = getattr(parameters, part)
    several = isinstance(getattr(parameters, last), set)
    setattr(parameters, last, {value} if several else value)


def main() -> int:
    """Serve until a signal ends the process; returns only when the server could not be started."""
    given = vars(parser().parse_args())
    sys.path.insert(0, given.pop("site"))
    import xllamacpp

    if given.pop("version"):
        print(f"version: xllamacpp {xllamacpp.__version__}")  # noqa: T201
        return 0
    parameters = xllamacpp.CommonParams()
    for name, value in given.items():
        if value is not None:
            set_parameter(parameters, name, value)
    try:
        server = xllamacpp.Server(parameters)
    except (RuntimeError, ValueError, TypeError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return FAILED
    # the kernel ends it: the server's own clean-up waits for what is being generated
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    print(f"serving on {server.listening_address}", file=sys.stderr, flush=True)  # noqa: T201
    threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
