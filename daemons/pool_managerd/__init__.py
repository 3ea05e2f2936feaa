"""The daemon of a GPU machine: GPUs, pools, engine health, handoff files."""
