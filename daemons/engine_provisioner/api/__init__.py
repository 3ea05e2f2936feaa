"""HTTP routes of engine-provisioner, on its Unix socket. The handlers are thin."""
