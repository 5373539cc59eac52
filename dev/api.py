"""The platform's web server on a socket that `python -m dev` has opened.

The socket outlives this process: whoever asks while it is started again is answered a little later instead of
being refused. uvicorn's own `--fd` would take the socket for a UNIX one, and leave Nagle's delays on.
"""

from __future__ import annotations

import socket
import sys

import uvicorn

__all__ = ["main"]


def main() -> int:
    """Serve on the file descriptor that is named by the only argument."""
    listening = socket.socket(fileno=int(sys.argv[1]))
    config = uvicorn.Config(
        "pharmacy_coverage.main:create_app", factory=True, access_log=False, timeout_graceful_shutdown=3
    )
    server = uvicorn.Server(config)
    server.run(sockets=[listening])
    return 0 if server.started else 3


if __name__ == "__main__":
    sys.exit(main())
