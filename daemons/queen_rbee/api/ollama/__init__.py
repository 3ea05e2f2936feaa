"""Ollama's API: its requests are translated for engines, its answers from their chunks.

The modules of routes are imported at start, with `declared`, `connected`, `names`, `loads` and `descriptions`. All
others are imported with the first request: an idle daemon does without their memory.
"""
