"""An imitation of llama.cpp's source tree: a cmake project whose target llama-server compiles in about a second.

Its server answers --version, --help, /health, /props, /slots, /v1/models and 501 to the rest, and generates nothing.
"""

import subprocess
import tarfile
from pathlib import Path

SERVER = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <netinet/in.h>
#include <sys/socket.h>

const char *build_name(void);

static void answer(int client, const char *status, const char *body) {
    char head[256];
    int size = snprintf(head, sizeof head,
        "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n",
        status, strlen(body));
    if (write(client, head, size) < 0 || write(client, body, strlen(body)) < 0) return;
}

int main(int argc, char **argv) {
    int port = 0;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--version")) { printf("version: 1 (%s)\n", build_name()); return 0; }
        if (!strcmp(argv[i], "--help")) { puts("-m, --model FNAME\n--host HOST\n--port PORT"); return 0; }
        if (!strcmp(argv[i], "--port") && i + 1 < argc) port = atoi(argv[i + 1]);
    }
    int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
    address.sin_addr.s_addr = htonl(getenv("TOY_ANY") ? INADDR_ANY : INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&address, sizeof address)) { perror("bind"); return 1; }
    if (listen(listener, 16)) { perror("listen"); return 1; }
    for (;;) {
        char request[4096] = {0};
        int client = accept(listener, NULL, NULL);
        if (client < 0) return 1;
        if (read(client, request, sizeof request - 1) > 0) {
            if (strstr(request, "GET /health ")) answer(client, "200 OK", "{\"status\":\"ok\"}");
            else if (strstr(request, "GET /slots ")) answer(client, "200 OK", "[{\"is_processing\":false}]");
            else if (strstr(request, "GET /v1/models ")) answer(client, "200 OK", "{\"data\":[{\"id\":\"toy\"}]}");
            else if (strstr(request, "GET /props ")) answer(client, "200 OK", "{\"total_slots\":1}");
            else answer(client, "501 Not Implemented", "{}");
        }
        close(client);
    }
}
"""

PROJECT = """\
cmake_minimum_required(VERSION 3.14)
project(toy C CXX)
add_library(name {library} name.c)
add_executable(llama-server server.c extra.cpp)
target_link_libraries(llama-server name)
set_target_properties(llama-server PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${{CMAKE_BINARY_DIR}}/bin)
set_target_properties(name PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${{CMAKE_BINARY_DIR}}/lib)
{more}
"""

GATE = """\
add_custom_command(OUTPUT gate.c DEPENDS name COMMAND sh {script} gate.c)
target_sources(llama-server PRIVATE gate.c)
"""


def write_project(tree: Path, *, name: str = "toy", library: str = "", more: str = "") -> Path:
    """Write the project into `tree`. Its version contains `name`."""
    tree.mkdir(parents=True, exist_ok=True)
    (tree / "CMakeLists.txt").write_text(PROJECT.format(library=library, more=more))
    (tree / "server.c").write_text(SERVER)
    (tree / "extra.cpp").write_text("int extra() { return 0; }\n")
    write_name(tree, name)
    return tree


def write_name(tree: Path, name: str) -> None:
    """Change the name that the engine's version contains."""
    (tree / "name.c").write_text(f'const char *build_name(void) {{ return "{name}"; }}\n')


def gate(directory: Path) -> str:
    """Return cmake code by which the build stops, with `directory`/reached, until `directory`/open exists."""
    script = directory / "gate.sh"
    script.write_text(f"touch {directory}/reached\nwhile ! test -e {directory}/open; do sleep 0.05; done\necho >$1\n")
    return GATE.format(script=script)


def commit(tree: Path, *, tag: str | None = None) -> str:
    """Commit everything in `tree` to its git repository on the branch main; return the commit."""
    git(tree, "init", "--quiet", "--initial-branch=main")
    git(tree, "add", "--all")
    git(tree, "commit", "--quiet", "--allow-empty", "--message=toy")
    if tag:
        git(tree, "tag", "--annotate", "--message=toy", tag)
    return git(tree, "rev-parse", "HEAD")


def git(tree: Path, *arguments: str) -> str:
    """Run git in `tree` and return its output. Raises CalledProcessError."""
    author = [option for name in ("user.name", "user.email") for option in ("-c", f"{name}=toy")]
    done = subprocess.run(["git", *author, *arguments], cwd=tree, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def pack(tree: Path, archive: Path) -> Path:
    """Write `tree` into `archive`, a .tar.gz, below one top directory."""
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tree, "toy-1.0")
    return archive
