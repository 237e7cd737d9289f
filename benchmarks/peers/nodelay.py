"""pyinfra as it is, but its SSH connections have TCP_NODELAY set.

Without it most of pyinfra's wall time on a fast network is waiting: paramiko sends several small packets for every
command, and Nagle's algorithm holds them back until the host's delayed acknowledgement comes. ssh sets the option by
itself. What pyinfra takes as installed is one fact, what its way of working needs is another; converge.py shows both.
"""

from __future__ import annotations

import importlib
import socket
from typing import Any

# By name: both live in the benchmark's own virtual environment, where mypy does not look. pyinfra patches for gevent
# while it is imported, so it comes first.
pyinfra_main = importlib.import_module("pyinfra_cli.main")
transport = importlib.import_module("paramiko").Transport
plain_init = transport.__init__


def init(self: Any, *arguments: Any, **keywords: Any) -> None:
    """Initialise the transport as paramiko does, then set the option."""
    plain_init(self, *arguments, **keywords)
    self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


if __name__ == "__main__":
    transport.__init__ = init
    pyinfra_main.main()
