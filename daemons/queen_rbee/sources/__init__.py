"""Where the queen learns of pools from: pool-managerds that it asks, and the handoff directory that it reads."""
