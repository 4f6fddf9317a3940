"""`reelflow gateway`: recommendations and events over HTTP."""

from __future__ import annotations

import click

from ..context import confluent_config, kafka_python_config, settings_from


@click.command
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one.  [default: 8080]")
@click.option("--worker-url", help="Where the worker's own port is.")
@click.option("--bootstrap", help="Kafka bootstrap servers.")
@click.pass_context
def command(
    ctx: click.Context, host: str | None, port: int | None, worker_url: str | None, bootstrap: str | None
) -> None:
    """Serve recommendations, accept events, and show a live page."""
    from serving.gateway import create_app
    from serving.gateway_server import serve

    settings = settings_from(
        ctx,
        gateway={"host": host, "port": port, "worker_url": worker_url},
        kafka={"bootstrap": bootstrap},
    )
    finder = None
    if settings.gateway.search:
        from ..content.finding import ContentFinder

        finder = ContentFinder(settings)
    app = create_app(
        settings,
        consumer=kafka_python_config(settings.kafka),
        producer=confluent_config(settings.kafka),
        finder=finder,
    )
    serve(
        app,
        settings.gateway.host,
        settings.gateway.port,
        on_listening=lambda address: click.echo(f"gateway at {address}"),
    )
