"""A real engine and small models, for integration tests, system tests and benchmarks."""
