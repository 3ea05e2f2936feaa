"""Settings of traces: OpenTelemetry's own variables."""

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from llama_orch.settings.declaration import Allowed, Var, rule
from llama_orch.settings.loading import Problem, Settings
from llama_orch.settings.types import BaseUrl, Integer, LooseFlag, Secret
from llama_orch.telemetry.tracing.options import (
    Protocol,
    SamplerName,
    TraceOptions,
    parse_headers,
    parse_pairs,
    protocol_of,
)

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
CERTIFICATE = "OTEL_EXPORTER_OTLP_CERTIFICATE"
CLIENT_CERTIFICATE = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"
CLIENT_KEY = "OTEL_EXPORTER_OTLP_CLIENT_KEY"
SAMPLER_ARGUMENT = "OTEL_TRACES_SAMPLER_ARG"
NO_PASSWORD = ""
"""With it an encrypted key fails to load; otherwise OpenSSL would ask for its password on the terminal."""


def _headers(value: Any) -> Any:
    if isinstance(value, str):
        parse_headers(value)
        return Secret(value)
    return value


def _attributes(value: str) -> str:
    for _pair in parse_pairs(value):
        pass
    return value


def _ratio(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise ValueError("is not a number") from None
    return value


Headers = Annotated[
    Secret, BeforeValidator(_headers), Allowed("NAME=VALUE, several separated by commas, values percent-encoded")
]
Attributes = Annotated[
    str, AfterValidator(_attributes), Allowed("NAME=VALUE, several separated by commas, values percent-encoded")
]
Name = Annotated[str, Field(pattern=r"^[\x21-\x7e]([\x20-\x7e]{0,253}[\x21-\x7e])?$"), Allowed("printable ASCII")]
Ratio = Annotated[float, BeforeValidator(_ratio)]
PATH = "the path of a PEM file"


class TracingSettings(Settings):
    """Where spans go. Without an endpoint there are none, and the other variables have no effect."""

    otlp_endpoint: Annotated[
        BaseUrl | None,
        Var(
            ENDPOINT,
            "OpenTelemetry collector (OTLP) that gets traces.",
            more="If unset, there are no traces. Port 4318 stands for OTLP over HTTP, every other port for gRPC; see "
            "OTEL_EXPORTER_OTLP_PROTOCOL. Over HTTP, spans are posted to /v1/traces below this URL. The other OTEL_ "
            "variables of this page have an effect only with this one; those that it does not list have none.",
            example="http://tempo:4317",
        ),
    ] = None
    otlp_protocol: Annotated[
        Protocol | None,
        Var(
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "Protocol of the collector.",
            example="http/protobuf",
            default="(none): http/protobuf if the endpoint's port is 4318, else grpc",
            addition=True,
        ),
    ] = None
    otlp_headers: Annotated[
        Headers | None,
        Var(
            "OTEL_EXPORTER_OTLP_HEADERS",
            "Headers for the collector, for example its token.",
            example="authorization=Bearer%20abc123",
            secret=True,
            addition=True,
        ),
    ] = None
    otlp_timeout_ms: Annotated[
        Integer,
        Var(
            "OTEL_EXPORTER_OTLP_TIMEOUT",
            "Milliseconds that the collector may take to accept spans.",
            example="10000",
            unit="milliseconds",
            addition=True,
        ),
        Field(ge=100, le=60_000),
    ] = 10_000
    otlp_ca: Annotated[
        Path | None,
        Var(
            CERTIFICATE,
            "CA certificates for an https:// collector.",
            more="If unset, the CAs of the system are trusted.",
            example="/etc/llama-orch/collector-ca.pem",
            allowed=PATH,
            addition=True,
        ),
    ] = None
    otlp_cert: Annotated[
        Path | None,
        Var(
            CLIENT_CERTIFICATE,
            "Certificate that the daemon presents to the collector.",
            example="/etc/ssl/otlp.pem",
            allowed=PATH,
            addition=True,
        ),
    ] = None
    otlp_key: Annotated[
        Path | None,
        Var(
            CLIENT_KEY,
            "Key of that certificate, without a password.",
            example="/etc/ssl/otlp.key",
            allowed=PATH,
            addition=True,
        ),
    ] = None
    otel_service_name: Annotated[
        Name | None,
        Var(
            "OTEL_SERVICE_NAME",
            "The attribute service.name of all spans.",
            example="queen-rbee-eu",
            default="(none): the name of the daemon",
            addition=True,
        ),
    ] = None
    otel_attributes: Annotated[
        Attributes | None,
        Var(
            "OTEL_RESOURCE_ATTRIBUTES",
            "Further attributes of all spans.",
            example="deployment.environment.name=production,service.namespace=llm",
            addition=True,
        ),
    ] = None
    otel_sampler: Annotated[
        SamplerName,
        Var(
            "OTEL_TRACES_SAMPLER",
            "Which traces are recorded.",
            more="The parentbased samplers follow the client's decision, the sampled flag of its traceparent header, "
            "and decide by themselves about requests without one.",
            example="parentbased_traceidratio",
            addition=True,
        ),
    ] = "parentbased_always_on"
    otel_ratio: Annotated[
        Ratio | None,
        Var(
            SAMPLER_ARGUMENT,
            "Part of the traces that traceidratio and parentbased_traceidratio record.",
            example="0.1",
            allowed="a number from 0 to 1",
            default="(none): all of them",
            addition=True,
        ),
        Field(ge=0, le=1),
    ] = None
    otel_disabled: Annotated[
        LooseFlag,
        Var(
            "OTEL_SDK_DISABLED",
            "Turn traces off, whatever the other variables say.",
            example="true",
            addition=True,
        ),
    ] = False

    def trace_options(self, daemon: str) -> TraceOptions | None:
        """Return where the spans of `daemon` go; None if there are to be none."""
        if self.otlp_endpoint is None or self.otel_disabled:
            return None
        return TraceOptions(
            endpoint=self.otlp_endpoint,
            service_name=self.otel_service_name or daemon,
            protocol=self.otlp_protocol or protocol_of(self.otlp_endpoint),
            headers=parse_headers(self.otlp_headers.get_secret_value()) if self.otlp_headers else {},
            timeout_s=self.otlp_timeout_ms / 1000,
            ca=self.otlp_ca,
            cert=self.otlp_cert,
            key=self.otlp_key,
            attributes=dict(parse_pairs(self.otel_attributes or "")),
            sampler=self.otel_sampler,
            ratio=1.0 if self.otel_ratio is None else self.otel_ratio,
        )

    @rule
    def sampler_takes_argument(self) -> Iterator[Problem]:
        """OTEL_TRACES_SAMPLER_ARG requires OTEL_TRACES_SAMPLER to be traceidratio or parentbased_traceidratio."""
        if self.otel_ratio is not None and not self.otel_sampler.endswith("traceidratio"):
            problem = f"has no effect with OTEL_TRACES_SAMPLER={self.otel_sampler}"
            hint = "Set that to parentbased_traceidratio, or unset this one."
            yield Problem(SAMPLER_ARGUMENT, f"{self.otel_ratio:g}", problem, hint)

    @rule
    def collector_certificate_has_key(self) -> Iterator[Problem]:
        """OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY must be set together."""
        for path, present, missing in (
            (self.otlp_key, CLIENT_CERTIFICATE, CLIENT_KEY),
            (self.otlp_cert, CLIENT_KEY, CLIENT_CERTIFICATE),
        ):
            if path is None and (self.otlp_cert or self.otlp_key):
                yield Problem(missing, None, f"is not set, but {present} is", "Set both or neither.")

    def unusable_files(self) -> Iterator[Problem]:
        """Yield the files for TLS that cannot be used; unlike the rules, this reads them."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.otlp_ca:
            try:
                context.load_verify_locations(self.otlp_ca)
            except OSError as error:
                yield _unusable(CERTIFICATE, self.otlp_ca, error)
        if self.otlp_cert and self.otlp_key:
            try:
                context.load_cert_chain(self.otlp_cert, self.otlp_key, NO_PASSWORD)
            except OSError as error:
                yield _unusable(CLIENT_CERTIFICATE, self.otlp_cert, error, f"with its key {self.otlp_key}")


def _unusable(variable: str, path: Path, error: OSError, also: str = "") -> Problem:
    """Return the problem with a PEM file; `error` may be OpenSSL's."""
    text = getattr(error, "reason", None) or error.strerror or str(error)
    words = f"cannot be used {also} ({text.replace('_', ' ').lower()})".replace("  ", " ")
    return Problem(variable, str(path), words, "It must hold PEM, and be readable by the daemon's user.")
