"""Real daemons and a real engine, without systemd."""
