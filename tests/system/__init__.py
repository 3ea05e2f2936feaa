"""Tests of the installed package on booted Debian 12 and 13 machines."""
