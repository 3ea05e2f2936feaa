"""Booted Debian machines for tests: systemd-nspawn over cached root file systems.

A machine costs about a second to boot. It has its own network, so that the ports of the package's defaults are
free in it, and nothing of it is left when its block ends.
"""
