"""Booted Debian machines for tests: systemd-nspawn on cached root file systems.

A machine boots in about a second. It has its own network, so that the default ports of the package are free. It is
removed completely at the end of its block.
"""
