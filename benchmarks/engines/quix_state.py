"""quix-streams that counts the events of each user in its state (RocksDB with a changelog topic)."""

from __future__ import annotations

from typing import Any

from quixstreams import Application, State

from .tally import Tally, arguments_of


def main() -> None:
    arguments = arguments_of(__doc__).parse_args()
    app = Application(
        broker_address=arguments.bootstrap,
        consumer_group=arguments.group,
        auto_offset_reset="earliest",
        state_dir=arguments.folder,
        loglevel="WARNING",
    )
    topic = app.topic(arguments.topic, value_deserializer="bytes", key_deserializer="bytes")
    tally = Tally(arguments.events, arguments.seconds)

    def count(_: Any, state: State) -> None:
        state.set("n", state.get("n", 0) + 1)
        tally.add()
        if tally.done:
            app.stop()

    app.dataframe(topic).update(count, stateful=True)
    app.run()
    tally.report()


if __name__ == "__main__":
    main()
