"""What must outlive the queen, behind the protocol in `queen_rbee.store.protocol`."""
