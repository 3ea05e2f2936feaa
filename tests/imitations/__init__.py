"""Imitations of services and of a bad network, for tests and benchmarks. They run on loopback."""
