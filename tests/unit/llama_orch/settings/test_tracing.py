"""The variables of OpenTelemetry: where spans go, and a clear word for what is wrong."""

from pathlib import Path

import pytest

from llama_orch.settings.loading import ConfigurationError
from llama_orch.settings.tracing import TracingSettings
from llama_orch.telemetry.tracing.options import TraceOptions

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://tempo:4317"}
TOKEN = "not-for-anybody"


def options(**environ: str) -> TraceOptions | None:
    return TracingSettings.load(ENDPOINT | environ).trace_options("queen-rbee")


def problem(**environ: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        TracingSettings.load(ENDPOINT | environ)
    (found,) = caught.value.problems
    return str(found)


def test_there_are_no_traces_without_an_endpoint() -> None:
    assert TracingSettings.load({"OTEL_TRACES_SAMPLER": "always_on"}).trace_options("queen-rbee") is None
    assert options(OTEL_SDK_DISABLED="true") is None


@pytest.mark.parametrize(
    ("endpoint", "given", "protocol"),
    [
        ("http://tempo:4317", {}, "grpc"),
        ("https://tempo", {}, "grpc"),
        ("http://tempo:4318", {}, "http/protobuf"),
        ("http://tempo:4318", {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "grpc"),
        ("http://tempo:4317", {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "http/protobuf"),
    ],
)
def test_protocol_follows_the_port_unless_set(endpoint: str, given: dict[str, str], protocol: str) -> None:
    found = options(OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, **given)
    assert found
    assert found.protocol == protocol


def test_all_values_reach_the_exporter() -> None:
    found = options(
        OTEL_EXPORTER_OTLP_HEADERS="Authorization=Bearer%20abc%3D, x-tenant=me",
        OTEL_EXPORTER_OTLP_TIMEOUT="2500",
        OTEL_SERVICE_NAME="eu queen",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test,team=a%2Cb",
        OTEL_TRACES_SAMPLER="parentbased_traceidratio",
        OTEL_TRACES_SAMPLER_ARG="0.25",
    )
    assert found
    assert found.headers == {"authorization": "Bearer abc=", "x-tenant": "me"}
    assert (found.timeout_s, found.service_name, found.ratio) == (2.5, "eu queen", 0.25)
    assert found.attributes == {"deployment.environment.name": "test", "team": "a,b"}


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "tempo:4317", "http:// or https:// URL"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "grpc or http/protobuf"),
        ("OTEL_EXPORTER_OTLP_HEADERS", TOKEN, "pair 1 has no name or no ="),
        ("OTEL_EXPORTER_OTLP_HEADERS", f"a b={TOKEN}", "invalid header name in pair 1"),
        ("OTEL_EXPORTER_OTLP_HEADERS", f"a={TOKEN}%0d%0ab: c", "control character in pair 1"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "content-type=text/plain", "which the exporter sets itself"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=b," * 65, "more than 64 pairs"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0", "must be at least 100"),
        ("OTEL_RESOURCE_ATTRIBUTES", "=x", "pair 1 has no name"),
        ("OTEL_TRACES_SAMPLER", "sometimes", "parentbased_traceidratio"),
        ("OTEL_SDK_DISABLED", "perhaps", "is not a Boolean"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.5", "has no effect with OTEL_TRACES_SAMPLER=parentbased_always_on"),
    ],
)
def test_unusable_value_is_refused_with_the_reason(variable: str, value: str, words: str) -> None:
    found = problem(**{variable: value})
    assert found.startswith(variable)
    assert words in found
    assert TOKEN not in found


@pytest.mark.parametrize("value", ["1.5", "-0.1", "nan", "half"])
def test_sampler_argument_must_be_a_part(value: str) -> None:
    assert "0 to 1" in problem(OTEL_TRACES_SAMPLER="traceidratio", OTEL_TRACES_SAMPLER_ARG=value)


def test_headers_are_a_secret() -> None:
    settings = TracingSettings.load(ENDPOINT | {"OTEL_EXPORTER_OTLP_HEADERS": f"authorization={TOKEN}"})
    shown = [value for variable, value, _source in settings.effective({}) if variable == "OTEL_EXPORTER_OTLP_HEADERS"]
    assert shown[0].startswith("token_fp6=")
    assert TOKEN not in repr(settings) + repr(settings.trace_options("queen-rbee"))


def test_certificate_needs_its_key() -> None:
    assert "OTEL_EXPORTER_OTLP_CLIENT_KEY: is not set" in problem(OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE="/a.pem")
    assert "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE: is not" in problem(OTEL_EXPORTER_OTLP_CLIENT_KEY="/a.key")


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    missing, text = tmp_path / "missing.pem", tmp_path / "text.pem"
    text.write_text("not a certificate")
    settings = TracingSettings.load(
        {
            "OTEL_EXPORTER_OTLP_CERTIFICATE": str(text),
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": str(missing),
            "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(missing),
        }
    )
    ca, cert = map(str, settings.unusable_files())
    assert ca.startswith(f"OTEL_EXPORTER_OTLP_CERTIFICATE={text}: cannot be used (no certificate")
    assert cert.startswith(f"OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE={missing}: cannot be used with its key")
