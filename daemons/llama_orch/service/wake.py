"""Notify a daemon over its Unix socket of new files in the handoff directory.

The -handoff services run it as `python3 -IS wake.py SOCKET`; if the daemon is not running, systemd starts it through
the socket. Imports only the standard library, to finish in milliseconds.
"""

import socket
import sys

REQUEST = b"POST /v2/handoff/scan HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
ANSWER_LIMIT_S = 60.0
STATUS_LINE_LIMIT = 256
EX_USAGE, EX_UNAVAILABLE, EX_PROTOCOL = 64, 69, 76


def wake(path: str) -> str:
    """Request a scan from the daemon at the Unix socket `path` and return the status line of its answer.

    A starting daemon answers when it is ready, within ANSWER_LIMIT_S seconds. Raises OSError.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_LIMIT_S)
        connection.connect(path)
        connection.sendall(REQUEST)
        answer = b""
        while b"\r\n" not in answer and len(answer) < STATUS_LINE_LIMIT:
            if not (chunk := connection.recv(STATUS_LINE_LIMIT)):
                raise ConnectionResetError("the connection was closed without an answer")
            answer += chunk
    return answer.partition(b"\r\n")[0].decode("latin-1")


def main(arguments: list[str]) -> int:
    """Wake the daemon at the socket in `arguments`; return a status of sysexits(3)."""
    if len(arguments) != 1:
        print("usage: wake.py SOCKET", file=sys.stderr)  # noqa: T201
        return EX_USAGE
    try:
        status = wake(arguments[0])
    except OSError as error:
        why = error.strerror or error
        print(f"cannot reach the daemon at {arguments[0]}: {why}. See systemctl status.", file=sys.stderr)  # noqa: T201
        return EX_UNAVAILABLE
    if not status.startswith("HTTP/1.1 2"):
        print(f"the daemon at {arguments[0]} refused to scan: {status}", file=sys.stderr)  # noqa: T201
        return EX_PROTOCOL
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
