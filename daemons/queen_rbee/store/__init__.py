"""The queen's persistent state; `queen_rbee.store.protocol` is its interface."""
