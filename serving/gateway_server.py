"""Runs the gateway's application under uvicorn until a signal, streams or not."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable
from typing import Final

import uvicorn
from fastapi import FastAPI

from schemas.errors import ConfigurationError

_GRACE_S: Final = 5
_BACKLOG: Final = 512


class GatewayServer(uvicorn.Server):
    """Ends the event streams before it waits for connections to close: they never would."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shut down in time."""
        self._app.state.gateway.streams.stop()
        await super().shutdown(sockets)


def serve(app: FastAPI, host: str, port: int, *, on_listening: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; `on_listening` is told the address (with the port chosen for 0).

    Raises
    ------
    ConfigurationError
        The address is taken or not ours.
    """
    with _listen(host, port) as listener:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACE_S,
            lifespan="on",
        )
        bound_host, bound_port = listener.getsockname()[:2]
        shown = f"[{bound_host}]" if ":" in bound_host else bound_host
        on_listening(f"http://{shown}:{bound_port}")
        # uvicorn raises the signal that stopped it once more when it is done. A stop that was asked
        # for is no failure, so what is raised then ends the process with 0.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _leave)
        GatewayServer(config, app).run(sockets=[listener])


def _leave(*_: object) -> None:
    sys.exit(0)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise ConfigurationError(
            "gateway.port", f"cannot listen on {host}:{port}: {error.strerror or error}"
        ) from None
    return listener
