"""Real servers of models, for tests and benchmarks: a container registry and S3."""
