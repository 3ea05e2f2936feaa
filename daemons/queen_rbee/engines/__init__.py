"""One adapter for each kind of engine, behind the protocol in `queen_rbee.engines.adapter`."""
