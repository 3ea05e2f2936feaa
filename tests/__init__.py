"""The tests of llama-orch."""
