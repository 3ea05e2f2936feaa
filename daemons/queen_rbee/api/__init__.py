"""HTTP handlers of queen-rbee: thin, one module for each group of paths."""
