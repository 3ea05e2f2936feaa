"""Tests of the shared library, mirroring its packages."""
