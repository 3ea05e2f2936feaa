"""engine-provisioner: fetches engines and models, starts engines, and announces them by handoff files."""
