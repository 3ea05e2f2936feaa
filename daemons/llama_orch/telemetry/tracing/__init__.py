"""Traces by OpenTelemetry. Only `spans` and `options` are imported by daemons that export none."""
