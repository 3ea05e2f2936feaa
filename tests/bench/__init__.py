"""Figures, not tests: `make bench` prints them; where two things are compared, both are measured in one run."""
