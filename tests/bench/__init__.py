"""Benchmarks: `make bench` prints the results. Things that are compared are measured in the same run."""
