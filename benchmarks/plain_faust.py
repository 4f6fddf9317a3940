"""A plain Faust agent that merely reads: what the stock transport delivers, one record at a time.

Prints one JSON object: events read and seconds, from the first record on.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time

import faust
from faust.types import StreamT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--partitions", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--group", required=True)
    arguments = parser.parse_args()
    app = faust.App(
        arguments.group,
        broker=f"kafka://{arguments.bootstrap}",
        topic_partitions=arguments.partitions,
        topic_disable_leader=True,
        topic_allow_declare=False,
        consumer_auto_offset_reset="earliest",
        web_enabled=False,
    )
    topic = app.topic(
        arguments.topic, value_type=bytes, value_serializer="raw", key_type=bytes, key_serializer="raw"
    )
    counts = {"events": 0, "first": 0.0, "last": 0.0}

    @app.agent(topic)
    async def read(stream: StreamT[bytes]) -> None:
        async for _ in stream:
            if not counts["events"]:
                counts["first"] = time.monotonic()
            counts["events"] += 1
            if not counts["events"] % 64:
                counts["last"] = time.monotonic()

    @app.task  # type: ignore[untyped-decorator]  # Faust leaves it untyped
    async def end() -> None:
        while not counts["events"]:
            await app.sleep(0.05)
        await app.sleep(arguments.seconds)
        seconds = counts["last"] - counts["first"]
        # Faust redirects sys.stdout to its log.
        print(json.dumps({"events": counts["events"], "seconds": seconds}), flush=True, file=sys.__stdout__)
        os.kill(os.getpid(), signal.SIGTERM)

    worker = faust.Worker(app, loglevel="warn")
    app.conf.web_enabled = False
    worker.execute_from_commandline()


if __name__ == "__main__":
    main()
