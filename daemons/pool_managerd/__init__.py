"""pool-managerd, the daemon of a GPU machine: GPUs, pools, engine health, relay, heartbeats."""
