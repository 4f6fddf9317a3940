"""A Faust app without its web server, topics, folders and command line, run as our own process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import faust
from faust.auth import SASLCredentials, SSLCredentials
from faust.tables import TableManager
from faust.types.auth import CredentialsT
from mode.types import ServiceT

from schemas.settings import KafkaSettings, Settings

from .batch_topic import BatchOptions
from .context import tls_context
from .transport import CrashingSupervisor

RECORDS_PER_FETCH = 500
"""Most records that a fetch brings for per-record topics, so that runs come in between."""


class NoTables(TableManager):
    """Faust's own sleeps a second so that tables can be declared; we have none, and a start is short."""

    async def on_start(self) -> None:
        """Go on at once."""
        await self._update_channels()
        await self.recovery.start()


class ReelflowApp(faust.App):
    """App whose own services start before and stop after everything that reads.

    A service (`mode.Service`) that crashes ends the process, as does `crash_from_thread`.
    """

    def __init__(self, *args: Any, services: Iterable[ServiceT] = (), **kwargs: Any) -> None:
        self.services: list[ServiceT] = list(services)
        super().__init__(*args, **kwargs)

    def add_service(self, service: ServiceT) -> None:
        """Run `service` with the app; call it before `run_app`."""
        self.services.append(service)

    def on_init_dependencies(self) -> Iterable[ServiceT]:
        """Services first: an agent may need them with its first message."""
        return [*self.services, *super().on_init_dependencies()]

    async def on_first_start(self) -> None:
        """Create no folders: there are no tables."""

    def crash_from_thread(self, cause: BaseException) -> None:
        """End the process with `cause`; from any thread."""
        self.loop.call_soon_threadsafe(lambda: asyncio.ensure_future(self.crash(cause)))


def group_id(settings: Settings, role: str = "worker") -> str:
    """Consumer group of a role: ``worker.group_id``, or prefix, role and model name."""
    return settings.worker.group_id or f"{settings.kafka.prefix}.{role}.{settings.worker.model_name}"


def build_app(
    settings: Settings, role: str = "worker", services: Sequence[ServiceT] = (), **options: Any
) -> ReelflowApp:
    """Faust app on the batch transport that creates nothing on the broker or on disk.

    Parameters
    ----------
    settings : Settings
    role : str
        Part of the consumer group's name.
    services : Sequence[ServiceT]
        Started before the consumer and the agents, stopped after them.
    options
        Faust settings that win over the ones chosen here.
    """
    chosen: dict[str, Any] = {
        "broker": ";".join(f"reelflow://{host.strip()}" for host in settings.kafka.bootstrap.split(",")),
        "broker_credentials": credentials(settings.kafka),
        "broker_client_id": f"reelflow-{role}",
        "broker_heartbeat_interval": 2.0,
        "broker_session_timeout": 10.0,
        "broker_request_timeout": 40.0,
        "broker_max_poll_interval": 300.0,
        "broker_max_poll_records": RECORDS_PER_FETCH,
        "consumer_auto_offset_reset": "earliest",
        "key_serializer": "raw",
        "value_serializer": "raw",
        "consumer_group_instance_id": settings.worker.instance_id,
        "agent_supervisor": CrashingSupervisor,
        # Waiting for agents inside a rebalance would wait for the learner.
        "stream_wait_empty": False,
        "TableManager": NoTables,
        "table_standby_replicas": 0,
        "topic_allow_declare": False,
        "topic_disable_leader": True,
        "web_enabled": False,
        "worker_redirect_stdouts": False,
    }
    return ReelflowApp(group_id(settings, role), services=services, **(chosen | options))


def batch_options(settings: Settings, **callbacks: Any) -> BatchOptions:
    """Options of a batch topic whose runs a `LearnerThread` learns, within the settings' limits.

    As many runs wait in front of the agent as in front of the thread, so that each may hold
    ``max_in_flight_mib / (2 * queue_runs)``.
    """
    worker = settings.worker
    return BatchOptions(
        max_records=worker.max_run_records,
        max_bytes=max(1, (worker.max_in_flight_mib << 20) // (2 * worker.queue_runs)),
        max_wait_s=worker.max_wait_ms / 1000,
        buffer_runs=worker.queue_runs,
        **callbacks,
    )


def credentials(kafka: KafkaSettings) -> CredentialsT | None:
    """Faust credentials of the security settings; None for PLAINTEXT."""
    context = tls_context(kafka)
    if kafka.security_protocol in {"SASL_PLAINTEXT", "SASL_SSL"}:
        return SASLCredentials(
            username=kafka.sasl_username,
            password=kafka.sasl_password,
            mechanism=kafka.sasl_mechanism or "PLAIN",
            ssl_context=context,
        )
    return None if context is None else SSLCredentials(context)


def run_app(app: ReelflowApp) -> NoReturn:
    """Run until SIGTERM or SIGINT, then stop in order and exit 0; never returns.

    Logging is left as the caller configured it.

    Raises
    ------
    SystemExit
        0 after a signal, 1 when the app could not start.
    BaseException
        Whatever crashed the app or one of its services, so that the process ends non-zero with
        its cause on stderr.
    """
    worker = faust.Worker(app, override_logging=False, redirect_stdouts=False, quiet=True)
    worker.spinner = None
    try:
        worker.execute_from_commandline()
    except SystemExit:
        if worker.crash_reason is not None:
            raise worker.crash_reason from None
        raise
