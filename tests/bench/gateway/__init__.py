"""queen-rbee beside other gateways: CPU, rate and latency of the same requests to the same engine."""
