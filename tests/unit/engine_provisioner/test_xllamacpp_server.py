"""The xllamacpp runner accepts llama-server's options and rejects unknown ones."""

import importlib
import subprocess
import sys
from types import SimpleNamespace

import pytest

from engine_provisioner import xllamacpp_server
from engine_provisioner.launch import command
from engine_provisioner.launch.probes import options_in
from engine_provisioner.xllamacpp_server import OPTIONS, parser, set_parameter
from tests.engines.fixtures import skip_or_fail
from tests.unit.engine_provisioner.pools import MODEL, engine, pool

RUN = [sys.executable, "-I", xllamacpp_server.__file__]


def test_help_has_llama_servers_format() -> None:
    shown = subprocess.run([*RUN, "--site", "/x", "--help"], capture_output=True, text=True, check=True).stdout
    assert options_in(shown) == {name for option in OPTIONS for name in option.names}


def test_every_option_of_the_command_line_is_accepted() -> None:
    known = engine(*(name for option in OPTIONS for name in option.names))
    for devices in ((), (0, 1)):
        subject = pool(devices=list(devices) or None, tensor_split=[1.0] * len(devices))
        started = command.engine_command(subject, known, MODEL, port=1, devices=devices, cache_ram_mib=1)
        given = vars(parser().parse_args(["--site", "/x", *started.argv[1:]]))
        assert given["model.path"] == "/srv/model.gguf"
        assert given["n_gpu_layers"] == (999 if devices else 0)


def test_unknown_option_is_reported() -> None:
    done = subprocess.run([*RUN, "--site", "/x", "--frob"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--frob" in done.stderr


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.names[-1])
def test_each_option_sets_an_existing_parameter(option: xllamacpp_server.Option) -> None:
    try:
        parameters = importlib.import_module("xllamacpp").CommonParams()
    except ImportError as error:
        skip_or_fail(f"xllamacpp cannot be loaded ({error}); its library is in the package libgomp1")
    set_parameter(parameters, option.parameter, option.value if option.parse is None else option.parse("1"))


def test_dotted_parameter_is_set_on_the_nested_object() -> None:
    parameters = SimpleNamespace(model=SimpleNamespace(path=""))
    set_parameter(parameters, "model.path", "/m")
    assert parameters.model.path == "/m"


def test_value_is_wrapped_where_a_release_has_a_set() -> None:
    parameters = SimpleNamespace(one="", several=set())
    for name in ("one", "several"):
        set_parameter(parameters, name, "text")
    assert (parameters.one, parameters.several) == ("text", {"text"})
