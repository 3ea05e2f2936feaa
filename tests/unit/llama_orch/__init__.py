"""The shared library, module by module."""
