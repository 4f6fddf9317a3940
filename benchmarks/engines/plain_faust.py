"""A plain Faust agent that merely reads: what the stock transport delivers, one record at a time.

With ``--take`` the agent asks for lists of up to a thousand values.
"""

from __future__ import annotations

import os
import signal

import faust
from faust.types import StreamT

from .tally import Tally, arguments_of

TAKEN = 1_000
TAKEN_WITHIN_S = 0.1
POLL_S = 0.05


def main() -> None:
    parser = arguments_of(__doc__)
    parser.add_argument("--take", action="store_true")
    arguments = parser.parse_args()
    app = faust.App(
        arguments.group,
        broker=f"kafka://{arguments.bootstrap}",
        datadir=arguments.folder,
        topic_partitions=arguments.partitions,
        topic_disable_leader=True,
        topic_allow_declare=False,
        consumer_auto_offset_reset="earliest",
        web_enabled=False,
    )
    topic = app.topic(
        arguments.topic, value_type=bytes, value_serializer="raw", key_type=bytes, key_serializer="raw"
    )
    tally = Tally(arguments.events, arguments.seconds)

    @app.agent(topic)
    async def read(stream: StreamT[bytes]) -> None:
        if arguments.take:
            async for values in stream.take(TAKEN, within=TAKEN_WITHIN_S):
                tally.add(len(values))
        else:
            async for _ in stream:
                tally.add()

    @app.task  # type: ignore[untyped-decorator]  # Faust leaves it untyped
    async def end() -> None:
        while not tally.done:
            await app.sleep(POLL_S)
        tally.report()
        os.kill(os.getpid(), signal.SIGTERM)

    worker = faust.Worker(app, loglevel="warn")
    app.conf.web_enabled = False
    worker.execute_from_commandline()


if __name__ == "__main__":
    main()
