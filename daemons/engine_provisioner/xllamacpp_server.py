"""Serve a model with xllamacpp's HTTP server, configured by llama-server's options.

`launch.command` runs it as a script: `python3 -I xllamacpp_server.py --site DIRECTORY …`, where DIRECTORY is the
private install. The server runs in this process and logs to standard error.
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
"""The length that xllamacpp requires of tensor_split."""


@dataclass(frozen=True)
class Option:
    """A command line option: llama-server's spellings, and the xllamacpp parameter that it sets.

    `parse` converts the argument. Without it the option takes no argument and sets `value`.
    """

    names: tuple[str, ...]
    parameter: str
    parse: Callable[[str], Any] | None = None
    value: bool = True


def parse_tensor_split(text: str) -> list[float]:
    """Return the numbers of --tensor-split, padded with 0 to DEVICES_MAX."""
    shares = [float(part) for part in text.split(",")]
    return shares + [0.0] * (DEVICES_MAX - len(shares))


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
    Option(("-ts", "--tensor-split"), "tensor_split", parse_tensor_split),
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
    """--help in llama-server's format, with each option at the beginning of its line."""

    def __call__(self, parser: argparse.ArgumentParser, *_rest: object) -> None:
        for option in OPTIONS:
            print(", ".join(option.names), "" if option.parse is None else "VALUE")  # noqa: T201
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """Return a parser for OPTIONS. An unknown option ends the process with status 2."""
    result = argparse.ArgumentParser("llama-server", add_help=False, allow_abbrev=False)
    result.add_argument("--site", required=True)
    result.add_argument("--version", action="store_true")
    result.add_argument("-h", "--help", action=Help, nargs=0)
    for option in OPTIONS:
        if option.parse is None:
            result.add_argument(
                *option.names, dest=option.parameter, action="store_const", const=option.value, default=None
            )
        else:
            result.add_argument(*option.names, dest=option.parameter, type=option.parse)
    return result


def set_parameter(parameters: Any, name: str, value: Any) -> None:
    """Set `a.b` on `parameters`. Some releases of xllamacpp have a set where others have one text."""
    *path, last = name.split(".")
    for part in path:
        parameters = getattr(parameters, part)
    is_set = isinstance(getattr(parameters, last), set)
    setattr(parameters, last, {value} if is_set else value)


def main() -> int:
    """Serve until a signal ends the process. Returns only if the server cannot start."""
    options = vars(parser().parse_args())
    sys.path.insert(0, options.pop("site"))
    import xllamacpp

    if options.pop("version"):
        print(f"version: xllamacpp {xllamacpp.__version__}")  # noqa: T201
        return 0
    parameters = xllamacpp.CommonParams()
    for name, value in options.items():
        if value is not None:
            set_parameter(parameters, name, value)
    try:
        server = xllamacpp.Server(parameters)
    except (RuntimeError, ValueError, TypeError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return FAILED
    # let the kernel end the process: the server's own shutdown waits for running generations
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    print(f"serving on {server.listening_address}", file=sys.stderr, flush=True)  # noqa: T201
    threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
