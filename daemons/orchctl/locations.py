"""Where the daemons listen, unless the command line or the environment say otherwise."""

from pathlib import Path

URL_VARIABLE = "ORCHESTRATORD_URL"
UNIX = "unix:"
DEFAULT_URL = "http://127.0.0.1:8080"
QUEEN_SOCKET = Path("/run/llama-orch/queen-rbee.sock")
POOL_MANAGERD_SOCKET = Path("/run/llama-orch/pool-managerd.sock")
GROUP = "llama-orch"
