"""kafka-python's admin client, closed even when it finds no broker."""

from __future__ import annotations

from typing import Any

from kafka.admin import KafkaAdminClient


class AdminClient(KafkaAdminClient):
    """The library's own, which leaves its thread and sockets behind when its constructor fails."""

    def __init__(self, **configs: Any) -> None:
        try:
            super().__init__(**configs)
        except BaseException:
            if hasattr(self, "_net"):  # as far as that, there is something to close
                self._closed = False
                self.close()
            raise
