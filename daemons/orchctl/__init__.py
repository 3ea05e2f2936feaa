"""The command line client of llama-orch."""
