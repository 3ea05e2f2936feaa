"""The generated environment files."""

import re

import pytest

from llama_orch.settings.environment_file import lines_of, parse
from tools.generate import DAEMONS
from tools.generating.documents import environment_file

IN_FORCE = {
    "queen-rbee": {
        "ORCHD_RUNTIME_DIR": "/run/llama-orch/engines",
        "ORCHESTRATORD_KEYS_FILE": "/etc/llama-orch/keys.toml",
    },
    "pool-managerd": {
        "POOL_MANAGERD_BIND_ADDR": "127.0.0.1:9200",
        "POOL_MANAGERD_RUNTIME_DIR": "/run/llama-orch/engines",
    },
    "engine-provisioner": {
        "ENGINE_PROVISIONER_HANDOFF_DIR": "/run/llama-orch/engines",
        "ENGINE_PROVISIONER_CACHE_DIR": "/var/cache/llama-orch",
        "ENGINE_PROVISIONER_POOLS_CONFIG": "/etc/llama-orch/pools.toml",
    },
}
pytestmark = pytest.mark.parametrize("daemon", DAEMONS)


def test_each_variable_appears_once(daemon: str) -> None:
    text = environment_file(daemon, DAEMONS[daemon])
    written = re.findall(r"^#?([A-Z][A-Z0-9_]*)=", text, re.MULTILINE)
    assert written == [var.env for var in DAEMONS[daemon].variables().values()]


def test_only_packaged_values_are_assigned(daemon: str) -> None:
    assert parse(environment_file(daemon, DAEMONS[daemon])) == IN_FORCE[daemon]


def test_lines_are_assignments_comments_or_blank(daemon: str) -> None:
    lines = environment_file(daemon, DAEMONS[daemon]).splitlines()
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]*=\S*|#.*|", line) for line in lines)
    assert all(len(line) <= 120 for line in lines)


PARTNERS = {
    "LLORCH_TLS_CERT_FILE": {"LLORCH_TLS_KEY_FILE": "/tls.key"},
    "LLORCH_TLS_KEY_FILE": {"LLORCH_TLS_CERT_FILE": "/tls.pem"},
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": {"OTEL_EXPORTER_OTLP_CLIENT_KEY": "/tls.key"},
    "OTEL_EXPORTER_OTLP_CLIENT_KEY": {"OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": "/tls.pem"},
    "OTEL_TRACES_SAMPLER_ARG": {"OTEL_TRACES_SAMPLER": "traceidratio"},
    "POOL_MANAGERD_SUSPEND_AFTER_SECS": {
        "POOL_MANAGERD_NODE_ID": "gpu-node-1",
        "ORCHESTRATORD_URL": "http://queen:8080",
        "LLORCH_API_TOKEN": "0123456789abcdef",
    },
}
"""Variables that are invalid alone."""


def test_shipped_file_and_all_examples_are_valid(daemon: str) -> None:
    text = environment_file(daemon, DAEMONS[daemon])
    DAEMONS[daemon].load(parse(text))
    variables = DAEMONS[daemon].variables().values()
    for var in variables:
        if (
            not var.secret
            and var.required is None
            and var.env not in ("LLORCH_API_TOKEN_FILE", "LLORCH_API_TOKEN_SECOND_FILE", "ORCHESTRATORD_CLOUD_PROFILE")
        ):
            DAEMONS[daemon].load({var.env: var.example} | PARTNERS.get(var.env, {}))


def test_comment_has_meaning_default_and_profile(daemon: str) -> None:
    flat = environment_file(daemon, DAEMONS[daemon]).replace("\n# ", " ")
    for var in DAEMONS[daemon].variables().values():
        assert var.meaning in flat
        assert f"Allowed: {var.allowed}. Default:" in flat
    assert flat.count("_PROFILE only.") == sum(var.profile != "any" for var in DAEMONS[daemon].variables().values())


def test_lines_of_assignments_are_known(daemon: str) -> None:
    text = environment_file(daemon, DAEMONS[daemon])
    assert {text.splitlines()[line - 1].partition("=")[0] for line in lines_of(text).values()} == set(IN_FORCE[daemon])
    assert lines_of(f"# c\nA='x\ny'\n\nB=1\\\n2\nA={daemon}\nC=") == {"A": 7, "B": 5, "C": 8}
