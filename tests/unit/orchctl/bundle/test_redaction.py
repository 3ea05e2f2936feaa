"""Redaction finds secrets in every notation, and leaves the rest readable."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchctl.bundle.redaction import is_secret_name, redact

SECRET = "Zx9-planted_s3cret"

PLANTED = {
    "environment file": f"LLORCH_API_TOKEN={SECRET}\n",
    "with blanks and quotes": f"HF_TOKEN='{SECRET} and {SECRET}' # x {SECRET}\n",
    "indented": f"  AWS_SECRET_ACCESS_KEY = {SECRET}\n",
    "session token": f"AWS_SESSION_TOKEN={SECRET}",
    "access key": f"AWS_ACCESS_KEY_ID={SECRET}",
    "unit": f'[Service]\nEnvironment="HF_TOKEN={SECRET}"\nEnvironment=A=1 HF_TOKEN={SECRET} B=2\n',
    "systemctl show": f"Environment=ORCHD_ADDR=x LLORCH_API_TOKEN={SECRET} OTEL_EXPORTER_OTLP_HEADERS={SECRET}\n",
    "headers of traces": f"OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20{SECRET},x={SECRET}\n",
    "authorization": f"Authorization: Bearer {SECRET}\n",
    "basic": f"> authorization: Basic {SECRET}==\r\n",
    "bearer in text": f"the header was Bearer {SECRET}, which is wrong",
    "api key header": f"X-Api-Key: {SECRET}\nCookie: a={SECRET}; b={SECRET}\n",
    "curl": f"curl -H 'Authorization: Bearer {SECRET}' http://x",
    "JSON": json.dumps({"api_key": SECRET, "nested": {"password": SECRET}, "list": [{"token": SECRET}]}),
    "TOML": f"[pools.env]\nHF_TOKEN = \"{SECRET}\"\nsecret = '{SECRET}'\n",
    "option": f"llama-server --api-key {SECRET} --port 1",
    "option with =": f"llama-server --api-key={SECRET}",
    "option in a list": f'flags = ["--api-key", "{SECRET}", "--port", "1"]',
    "option in ExecStart": f"ExecStart={{ path=/x ; argv[]=/x --hf-token {SECRET} ; }}",
    "URL": f"model = https://user:{SECRET}@host/m.gguf?X-Amz-Signature={SECRET}#{SECRET}",
    "URL with token only": f"fetching https://{SECRET}@host/m.gguf",
    "private key": f"-----BEGIN EC PRIVATE KEY-----\n{SECRET}\n-----END EC PRIVATE KEY-----",
    "truncated private key": f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n",
}


@pytest.mark.parametrize("notation", PLANTED)
def test_planted_secret_is_hidden(notation: str) -> None:
    redacted = redact(PLANTED[notation])
    assert SECRET not in redacted
    assert "***" in redacted


@pytest.mark.parametrize(
    "token",
    ["hf_abcdefghijklmnopqrst", "AKIAABCDEFGHIJKLMNOP", "ghp_abcdefghijklmnopqrstuv", "eyJhbGciOiJI.eyJzdWIiOiIx.abc"],
)
def test_tokens_of_known_shapes_are_hidden_anywhere(token: str) -> None:
    assert redact(f"x {token} y") == "x *** y"


def test_known_secret_is_hidden_without_a_name() -> None:
    assert redact(f"got {SECRET}!", [SECRET, "", "a"]) == "got ***!"


@pytest.mark.parametrize(
    "text",
    [
        "queen-rbee: the token is token_fp6=1a2b3c from LLORCH_API_TOKEN_FILE=/etc/llama-orch/api-token",
        '{"tokens_out": 512, "max_tokens": 64, "first_token_ms": 12.5, "vram_total_bytes": 1}',
        "LLORCH_TLS_KEY_FILE=/etc/llama-orch/tls.key\nHF_TOKEN_PATH=/x\nAWS_REGION=eu-west-1\nAWS_ENDPOINT_URL=http://x\n",
        "Nov 30 20:00:01 host queen-rbee[7]: task 1 done on pool default: 9 tokens in 12 ms",
        "LISTEN 0 4096 127.0.0.1:8080 0.0.0.0:*",
        "ProtectHome=read-only\nKeyringMode=private\nExecStart={ path=/usr/bin/python3 ; argv[]=python3 -I -m x ; }\n",
    ],
)
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


def test_json_stays_valid() -> None:
    document = {
        "token": SECRET,
        "flag_token": None,
        "n": 1,
        "secret": 'a"b',
        "api_key": True,
        "url": "http://a:b@c/d?e",
    }
    found = json.loads(redact(json.dumps(document)))
    assert found == {**document, "token": "***", "secret": "***", "url": "http://***@c/d?***"}


@given(st.text())
def test_any_text_can_be_redacted_and_stays_so(text: str) -> None:
    once = redact(text)
    assert redact(once) == once


@given(st.text("ABCDEF012345", min_size=12, max_size=40), st.text(max_size=30), st.text(max_size=30))
def test_known_secret_never_survives(secret: str, before: str, after: str) -> None:
    assert secret not in redact(f"{before}{secret}{after}", [secret])


def test_long_text_is_redacted_in_linear_time() -> None:
    for text in ("a=" * 200_000, "--key " * 100_000, "x" * 1_000_000, "Bearer " * 100_000, '"' * 300_000):
        redact(text)


@pytest.mark.parametrize("name", ["HF_TOKEN", "api_key", "x-api-key", "Password", "AWS_SESSION_TOKEN", "client_secret"])
def test_names_of_secrets_are_known(name: str) -> None:
    assert is_secret_name(name)
