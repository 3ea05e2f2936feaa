"""The command line client against a scripted queen."""
