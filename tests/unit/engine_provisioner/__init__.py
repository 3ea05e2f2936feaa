"""engine-provisioner: its decisions, and its edges one by one."""
