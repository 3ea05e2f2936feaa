"""HTTP on both sides: the server shim, the small exchange of the hot paths, the gate, and the client."""
