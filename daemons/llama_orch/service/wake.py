"""Tell a daemon over its Unix socket that files have changed.

Units run it as `python3 -IS wake.py SOCKET [PATH]`: with the default path for new files in the handoff directory, with
/v2/pools/reload for pools files, and with /v2/reload for `systemctl reload`, which passes on the environment that
systemd has read for it. If the daemon is not running, systemd starts it through the socket. Imports only
the standard library, to finish in milliseconds.
"""

import socket
import sys

SCAN = "/v2/handoff/scan"
RELOAD = "/v2/reload"
POOLS_RELOAD = "/v2/pools/reload"
REQUEST = "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\nConnection: close\r\n\r\n"
OK = b"HTTP/1.1 2"
ANSWER_LIMIT_S = 60.0
STATUS_LINE_LIMIT = 256
ERROR_LIMIT = 1 << 16
EX_USAGE, EX_UNAVAILABLE, EX_PROTOCOL = 64, 69, 76


def wake(socket_path: str, path: str = SCAN) -> str:
    """Send POST `path` to the daemon at the Unix socket; return the status line of its answer and, of an error, more.

    A starting daemon answers when it is ready, within ANSWER_LIMIT_S seconds. Raises OSError.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_LIMIT_S)
        connection.connect(socket_path)
        body = environment() if path == RELOAD else b""
        connection.sendall(REQUEST.format(path, len(body)).encode() + body)
        answer = b""
        while b"\r\n" not in answer and len(answer) < STATUS_LINE_LIMIT:
            if not (chunk := connection.recv(STATUS_LINE_LIMIT)):
                raise ConnectionResetError("the connection was closed without an answer")
            answer += chunk
        status = answer.partition(b"\r\n")[0]
        if not status.startswith(OK) and (text := explanation(connection, answer)):
            return text
    return status.decode("latin-1")


def environment() -> bytes:
    """Return the body of a reload: the variables of this process."""
    import json
    import os

    variables = {name: value.encode(errors="replace").decode() for name, value in os.environ.items()}
    return json.dumps({"environment": variables}).encode()


def explanation(connection: socket.socket, answer: bytes) -> str:
    """Return the message of an error's JSON body, or an empty text. `answer` is what was received."""
    import json

    try:
        while len(answer) < ERROR_LIMIT:
            head, _, body = answer.partition(b"\r\n\r\n")
            length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            if b"\r\n\r\n" in answer and length and len(body) >= int(length[0].partition(b":")[2]):
                break
            if not (chunk := connection.recv(ERROR_LIMIT)):
                break
            answer += chunk
        return str(json.loads(answer.partition(b"\r\n\r\n")[2])["message"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def main(arguments: list[str]) -> int:
    """Wake the daemon at the socket in `arguments`; return a status of sysexits(3)."""
    if len(arguments) not in (1, 2):
        print("usage: wake.py SOCKET [PATH]", file=sys.stderr)  # noqa: T201
        return EX_USAGE
    try:
        answer = wake(*arguments)
    except OSError as error:
        why = error.strerror or error
        print(f"cannot reach the daemon at {arguments[0]}: {why}. See systemctl status.", file=sys.stderr)  # noqa: T201
        return EX_UNAVAILABLE
    if arguments[1:] == [POOLS_RELOAD] and not answer.startswith("HTTP/"):
        return EX_PROTOCOL  # pools files with an error, which the daemon has logged
    if not answer.startswith(OK.decode()):
        refused = "to scan" if len(arguments) == 1 else f"POST {arguments[1]}"
        print(f"the daemon at {arguments[0]} refused {refused}: {answer}", file=sys.stderr)  # noqa: T201
        return EX_PROTOCOL
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
