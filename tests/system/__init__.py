"""Tests of the installed package in a booted Debian 12 and a booted Debian 13."""
