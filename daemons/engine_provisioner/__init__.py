"""Gets engines and models, has them run, and announces them by handoff files."""
