"""Sources of pools in HOME_PROFILE: polled pool-managerds and the handoff directory."""
