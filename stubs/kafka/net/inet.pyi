"""What the tests mend in kafka-python's connecting."""

from collections.abc import Callable, Coroutine
from typing import Any

class KafkaNetSocket:
    sock_connect: Callable[..., Coroutine[Any, Any, Any]]
