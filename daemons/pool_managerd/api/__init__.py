"""HTTP routes of pool-managerd. The handlers are thin."""
