"""Keeps the machine awake while it works, and has it suspended when it is idle."""
