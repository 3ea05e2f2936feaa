"""Tests with real daemons and a real engine, without systemd."""
