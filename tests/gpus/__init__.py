"""An imitation of NVIDIA's management library for tests on machines without a GPU."""
