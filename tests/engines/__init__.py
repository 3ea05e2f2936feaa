"""A real engine and models that are small: what integration tests, system tests and benchmarks serve."""
