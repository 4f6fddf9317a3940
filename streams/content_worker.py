"""`reelflow content-worker`: reads what an item is, and publishes its vectors and tags.

Event loop: Faust (transport, the agent), the HTTP port, commits. Learner thread: what a record asks for.
Threads of `streams.content`: media, encoders and producing; what is published already; the background.
Decoding runs in processes with limits. Any number of content workers share a consumer group, and with it the
catalogue's partitions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, NoReturn

import msgspec
import structlog
from faust.types import TP
from prometheus_client import CollectorRegistry

from schemas.errors import StateError
from schemas.settings import Settings
from serving.content_metrics import ContentMetrics

from .batch_topic import PartitionStart
from .content.answers import ContentAnswers
from .content.core import MOST_WAITING, ContentCore
from .content.cover_text import SIDE
from .content.encoders import load_encoders
from .content.limits import MIB, Form, MediaLimits, SourceRules
from .content.pool import MediaPool
from .context import confluent_config
from .faust_app import batch_options, build_app, run_app
from .role_service import ASSIGN_TIMEOUT_S, RoleService, check_topics_exist
from .sinks import KafkaSink

log = structlog.get_logger(__name__)

ROLE = "content"
RUN_RECORDS = 500
LOOK_S = 0.02


class ContentService(RoleService):
    """The service of a content worker."""

    def __init__(self, settings: Settings, core: ContentCore, **kwargs: Any) -> None:
        super().__init__(settings, core, ContentAnswers(core), **kwargs)
        self.core = core

    async def prepare(self) -> None:
        """Begin to read what is published; partitions come with the first assignment."""
        self.core.start()

    async def room(self) -> None:
        """Wait until there is room for more items."""
        while self.core.pipeline.n_waiting > MOST_WAITING:  # noqa: ASYNC110 - other threads finish items
            await asyncio.sleep(LOOK_S)

    async def assigned(self, starts: Mapping[TP, PartitionStart]) -> None:
        """Records come from here on, as soon as all that was made of earlier ones is known."""
        partitions = frozenset(tp.partition for tp in starts)
        await asyncio.wrap_future(self.core.index.catch_up(partitions))
        await self.thread.ask(
            lambda: self.core.assign({tp.partition: start for tp, start in starts.items()}), ASSIGN_TIMEOUT_S
        )
        log.info("partitions_assigned", n=len(starts), items_known=len(self.core.index))

    async def revoked(self, partitions: frozenset[TP]) -> None:
        """What is under way of them is not published any more."""
        self.core.held.release(tp.partition for tp in partitions)

    async def each_second(self) -> None:
        """An encoder that does not come back ends the process, as a learner does."""
        limit = self._settings.worker.stuck_after_s
        if self.core.pipeline.busy_s() > limit:
            await self.crash(
                StateError(f"the encoders have been busy for more than {limit} s (worker.stuck_after_s)")
            )


def media_pool(settings: Settings, sample_rate: int) -> MediaPool:
    """Decoders as the settings have them.

    Raises
    ------
    ExtraError
        The packages of the extra ``content``, or ``ocr`` where covers are read, are not installed.
    """
    content = settings.content
    return MediaPool(
        SourceRules(
            roots=content.roots,
            schemes=content.schemes,
            hosts=content.hosts,
            private_networks=content.private_networks,
        ),
        MediaLimits(
            max_bytes=content.max_media_mib * MIB,
            max_pixels=content.max_megapixels * 1_000_000,
            max_audio_s=content.max_audio_s,
            max_video_s=content.max_video_s,
            fetch_s=content.fetch_s,
            decode_s=content.decode_s,
            decode_cpu_s=max(1, round(content.decode_s)),
            memory_mib=content.decode_memory_mib,
        ),
        Form(sample_rate=sample_rate, text_side=SIDE if content.cover_text else 0),
        workers=content.media_workers,
    )


def run_content_worker(settings: Settings) -> NoReturn:
    """Load the models, check the topics, and run until a signal; see `run_app` for how it ends.

    Raises
    ------
    ExtraError
        The packages of the extra ``content``, or ``ocr`` where covers are read, are not installed.
    ConfigurationError
        A model is not on this machine.
    TopicError
        Topics are missing, or of another size.
    """
    encoders = load_encoders(settings.content)
    check_topics_exist(settings)
    pool = media_pool(settings, encoders.sample_rate)
    failures: list[ContentService] = []

    def fail(error: BaseException) -> None:
        failures[0].fail(error)

    sink = KafkaSink(confluent_config(settings.kafka), compression=settings.worker.compression)
    core = ContentCore(settings, encoders, pool, sink, ContentMetrics(CollectorRegistry()), fail)
    service = ContentService(settings, core)
    failures.append(service)
    app = build_app(settings, ROLE, services=[service])
    service.bind(app)
    options = batch_options(settings, on_assigned=service.assigned, on_revoked=service.revoked)
    # A run is taken whole, and its items wait in memory.
    options = msgspec.structs.replace(
        options, max_records=min(options.max_records, RUN_RECORDS), max_wait_s=0.0
    )
    service.read(core.names.catalogue, options)
    log.info("content_worker_starting", group=app.conf.id, encoders=encoders.digest)
    run_app(app)
