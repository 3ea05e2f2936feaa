"""The values that cross a process boundary: handoff files, pool snapshots, tasks, errors.

Every model here is a promise to the outside. Adding a field is free, renaming one is not.
"""
