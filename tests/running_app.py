"""The gateway's application on a real port, in a thread of the test's own process."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from serving.gateway_server import GatewayServer


@contextmanager
def running_app(app: FastAPI) -> Iterator[str]:
    """Serve `app` on a free loopback port; yields its base URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = GatewayServer(uvicorn.Config(app, log_config=None, access_log=False, lifespan="on"), app)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        deadline = time.monotonic() + 90
        while not server.started and thread.is_alive():
            assert time.monotonic() < deadline, "the application did not start"
            time.sleep(0.01)
        assert server.started, "the application did not start"
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive(), "the application did not stop"
