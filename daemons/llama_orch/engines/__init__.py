"""Facts about each kind of engine that several daemons need: its workloads, and which of its endpoints are relayed."""
