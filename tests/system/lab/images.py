"""A container image with a real llama-server, for machines without a registry, and what podman needs in a machine."""

import io
import tarfile

from tests.engines.llama_server import LOADER, llama_server_directory
from tests.system.lab.container import Container

IMAGE, TAG = "localhost/llama-cpu", "1"
ENTRYPOINT = f'["/lib/{LOADER}","--library-path","/lib","--argv0","llama-server","/libexec/server"]'

# Machines have an overlay as root, on which podman's driver overlay does not work, and no keyrings.
STORAGE = """\
[storage]
driver = "vfs"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
"""
CONTAINERS = "[containers]\nkeyring = false\n"


def prepare(container: Container) -> None:
    """Configure podman for a machine of the lab."""
    container.write("/etc/containers/storage.conf", STORAGE)
    container.write("/etc/containers/containers.conf", CONTAINERS)


def import_image(container: Container) -> str:
    """Import the image and return its id."""
    buffer, server = io.BytesIO(), llama_server_directory()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("lib", "libexec"):
            tar.add(server / name, name)
        for name in ("tmp", "models"):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(directory)
    container.write("/root/llama.tar", buffer.getvalue())
    command = ("podman", "import", "--quiet", "--change", f"ENTRYPOINT {ENTRYPOINT}", "/root/llama.tar")
    return container.check(*command, f"{IMAGE}:{TAG}").strip().removeprefix("sha256:")
