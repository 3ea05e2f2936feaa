"""HTTP routes of engine-provisioner, served on its Unix socket. The handlers are thin."""
