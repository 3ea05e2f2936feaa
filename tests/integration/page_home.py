"""Start a HOME_PROFILE for tests of the page: two pools on demand, two imitated GPUs, and a token."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.engines.llama_server import Archive
from tests.gpus.imitation import ImitatedDriver, ImitatedGpu
from tests.integration.home import Home, environment, free_port, share_unpacked, stop_if_running

TOKEN = "a-token-for-tests-only"
POOL = """
[[pools]]
id = "{name}"
model = "file:{model}"
ctx = 2048
preload = {preload}
keep_alive = -1
ports = [{port}]
flags = ["--threads", "1"]
[pools.provisioning]
mode = "binary"
url = "file:{archive}"
checksum = "{checksum}"
allow_binary_downloads = true
"""
GPUS = (
    ImitatedGpu(),
    ImitatedGpu(1, "GPU-00000000-0000-0000-0000-00000000000b", used=71_000, util=93, temp=74, watts=612.0),
)


@contextmanager
def page_home(directory: Path, archive: Archive, model: Path) -> Iterator[tuple[Home, ImitatedDriver]]:
    """Run the daemons with the pools `main`, which is loaded, and `spare`, which is not."""
    driver = ImitatedDriver(directory / "hardware", [*GPUS])
    environ = environment(directory, LLORCH_API_TOKEN=TOKEN)
    queen, manager = (
        int(environ[name].rpartition(":")[2]) for name in ("ORCHESTRATORD_BIND_ADDR", "POOL_MANAGERD_BIND_ADDR")
    )
    fields = {"model": model, "archive": archive.path, "checksum": archive.checksum}
    pools = {"main": "true", "spare": "false"}
    text = "".join(POOL.format(name=name, preload=load, port=free_port(), **fields) for name, load in pools.items())
    (directory / "pools.toml").write_text(text)
    share_unpacked(archive, directory / "cache")
    running = Home(directory, environ, queen, manager, token=TOKEN)
    with ExitStack() as cleanup:
        for name in ("queen-rbee", "pool-managerd", "engine-provisioner"):
            running.start(name, **(driver.environ if name == "pool-managerd" else {}))
            cleanup.callback(stop_if_running, running, name)
        yield running, driver
