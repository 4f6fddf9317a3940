"""What the tests mend in kafka-python's connecting."""

import socket as sockets
from collections.abc import Callable

class KafkaNetSocket:
    socket: Callable[..., sockets.socket]
