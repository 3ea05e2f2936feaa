"""Traces of a daemon, if its settings name a collector."""

import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from llama_orch.service.exit import ExitStatus, StartupError
from llama_orch.settings.loading import Problem, Settings
from llama_orch.settings.tracing import TracingSettings

INSTALL = "Install it: pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-common 'httpx2[http2]'"


def unusable_files(settings: Settings) -> list[Problem]:
    """Return the problems with the files for the collector's TLS."""
    return list(settings.unusable_files()) if isinstance(settings, TracingSettings) else []


@asynccontextmanager
async def traces(settings: Settings, daemon: str) -> AsyncIterator[None]:
    """Export the spans of the block. Raises StartupError if a module is missing that only the export needs."""
    options = settings.trace_options(daemon) if isinstance(settings, TracingSettings) else None
    if options is None:
        yield
        return
    try:
        provider = importlib.import_module("llama_orch.telemetry.tracing.provider")
    except ImportError as error:
        message = f"OTEL_EXPORTER_OTLP_ENDPOINT is set, but a module that exports traces is missing ({error})"
        raise StartupError(message, f"{INSTALL}, or unset the variable.", ExitStatus.CONFIG) from error
    async with provider.exporting(options):
        yield
