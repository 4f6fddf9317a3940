"""The content worker between catalogue and topics: what to do with a record, and how it is done.

Records are looked at on the learner thread (`apply`), encoded and published on that of the pipeline
(`finish`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import structlog

from schemas.content import CatalogueSource, EncodedVector, ItemContent, ItemTags, packed_vector
from schemas.errors import ContractError, StateError
from schemas.media import Modality
from schemas.runs import Float32, RecordRun
from schemas.settings import Settings
from schemas.topics import topic_names
from serving.content_metrics import ContentMetrics

from ..batch_topic import PartitionStart
from ..commits import Positions
from ..sinks import Sink
from .backfill import Backfill
from .decoded import Film, Picture
from .encoders import MODALITIES, EncoderSet
from .index import ContentIndex, known_of, withdrawn
from .jobs import Job, Planner
from .pipeline import Pipeline
from .pool import MediaPool
from .positions import Holds
from .publishing import ContentPublisher, Result, StoppedError
from .tagging import Tagging
from .texts import guess_language

log = structlog.get_logger(__name__)

MOST_WAITING: Final = 1_000
"""Items; reading the catalogue waits for them."""

STOP_S: Final = 15.0
FIRST_RETRY_S: Final = 30.0
RETRY_FACTOR: Final = 4.0


class ContentCore:
    """See the module's docstring.

    Parameters
    ----------
    settings : Settings
    encoders : EncoderSet
    pool : MediaPool
        Closed with the core.
    sink : Sink
    metrics : ContentMetrics
    on_failure : callable
        Given what ended a thread; must end the process.
    now_s : callable
        Wall clock.
    """

    def __init__(
        self,
        settings: Settings,
        encoders: EncoderSet,
        pool: MediaPool,
        sink: Sink,
        metrics: ContentMetrics,
        on_failure: Callable[[BaseException], None],
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self.names = topic_names(settings.kafka.prefix)
        self.encoders, self.pool, self.metrics, self.now_s = encoders, pool, metrics, now_s
        self.batch_records = settings.worker.max_run_records
        self.n_committed = 0
        self.not_ready_because = ""
        self.n_done = 0
        self.n_encoded = 0
        self._retries = settings.content.retries
        self._stopping = threading.Event()
        self.held = Holds(self.names.catalogue)
        self.tagging = Tagging(settings, encoders)
        self.index = ContentIndex(
            settings.kafka,
            on_labelled=self.tagging.learn,
            on_regressed=lambda source: self.backfill.again(source, 0.0, 0),
            on_failure=on_failure,
        )
        self._planner = Planner(encoders, self.index)
        self._publisher = ContentPublisher(sink, self.names, metrics, self._stopping)
        self._sink = sink
        self.pipeline = Pipeline(
            pool.read,
            self.finish,
            batch_size=settings.content.batch_size,
            media_workers=settings.content.media_workers,
            on_failure=on_failure,
        )
        self.backfill = Backfill(
            settings,
            self._planner,
            self.held,
            offer=self.pipeline.offer,
            n_waiting=lambda: self.pipeline.n_background,
            on_failure=on_failure,
        )

    def start(self) -> None:
        """Begin to read what is published, and to work."""
        self.index.start()
        self.pipeline.start()
        self.backfill.start()

    @property
    def ready(self) -> bool:
        """Whether records are read, and what the log had at the start is done."""
        return self.held.caught_up() and not self.not_ready_because

    # -- partitions -----------------------------------------------------------------------------

    def assign(self, starts: Mapping[int, PartitionStart]) -> None:
        """Partitions were taken over, and what is published of them is known.

        Raises
        ------
        StateError
            Content was made of records that the catalogue does not have.
        """
        for partition, start in starts.items():
            newest = self.index.newest(partition)
            if newest >= start.end:
                raise StateError(
                    f"{self.names.catalogue}[{partition}] ends at offset {start.end}, and content was made of"
                    f" its record {newest}: the topic was created anew; create {self.names.item_content} and"
                    f" {self.names.item_tags} anew too"
                )
            hold = self.held.take(partition, start=start.start, end=start.end)
            self.backfill.scan(hold, start.start)

    # -- records --------------------------------------------------------------------------------

    def apply(self, runs: list[RecordRun]) -> None:
        """Look at records; what asks for work is under way then."""
        for run in runs:
            hold = self.held.of(run.partition)
            if hold is None:
                continue
            for i, offset in enumerate(run.offsets.tolist()):
                source = CatalogueSource(partition=run.partition, offset=offset)
                try:
                    job = self._planner.job(
                        run.keys[i], run.values[i], source, int(run.timestamps_ms[i]), hold
                    )
                except ContractError:
                    # Whoever makes lists reads the same topic and writes the letter.
                    self.metrics.items.labels("broken").inc()
                    continue
                if job is None:
                    self.metrics.items.labels("unchanged").inc()
                    continue
                self.held.begin(hold, offset)
                self.pipeline.offer(job)
            self.held.read_to(hold, run.next_offset)

    def tick(self) -> None:
        """Nothing is due by the clock."""

    def close(self) -> None:
        """Finish what is being encoded; the rest is read again by whoever comes next."""
        self._stopping.set()
        if not self.pipeline.stop(STOP_S):
            log.warning("batch_left_unfinished", seconds=STOP_S)
        self.backfill.stop()
        self.index.stop()
        self.pool.close()

    def safe_positions(self) -> Positions:
        """What may be committed."""
        return self.held.safe()

    # -- the pipeline's thread ------------------------------------------------------------------

    def finish(self, jobs: list[Job]) -> None:
        """Encode and publish a batch, and mark it done."""
        wanted = [job for job in jobs if self._is_wanted(job)]
        results = self._results(wanted)
        try:
            self._publisher.publish(results)
        except StoppedError:
            return
        now_ms = self.now_s() * 1000
        for one in results:
            self._account(one)
        live = [one.job for one in results if not one.job.background]
        if live:
            waited = np.array([now_ms - job.broker_ms for job in live], dtype=np.float64) / 1000
            self.metrics.item_to_content.observe_many(np.maximum(waited, 0.0))
        self.metrics.items.labels("superseded").inc(len(jobs) - len(wanted))
        for job in jobs:
            if not job.background:
                self.held.done(job.hold, job.source.offset)

    def _is_wanted(self, job: Job) -> bool:
        known = self.index.known(job.item_id)
        newer_is_done = known is not None and known.offset > job.source.offset
        return self.held.holds(job.hold) and self.pipeline.is_newest(job) and not newer_is_done

    def _results(self, jobs: list[Job]) -> list[Result]:
        encoded = self._encode([job for job in jobs if job.item is not None])
        started = time.perf_counter()
        # Words on a cover may be those of a watermark: as tags they are good enough where there is no title.
        titles = [job.title or job.text for job in encoded]
        tags = self.tagging.find(list(encoded.values()), titles)
        self.metrics.encode_seconds.labels("tags").inc(time.perf_counter() - started)
        found = dict(zip(encoded, tags, strict=True))
        results = []
        for job in jobs:
            if job.item is None:
                results.append(Result(job=job, content=None, tags=None))
                continue
            content = self._content(job, encoded[job])
            item_tags = ItemTags(
                item_id=job.item_id,
                content_hash=job.content_hash,
                encoders=content.encoders,
                source=job.source,
                n_examples=self.tagging.n_examples,
                tags=found[job],
            )
            results.append(Result(job=job, content=content, tags=item_tags))
        return results

    def _encode(self, jobs: list[Job]) -> dict[Job, dict[Modality, Float32]]:
        """Vectors by job and modality; what an encoder fails on becomes a letter."""
        found: dict[Job, dict[Modality, Float32]] = {job: dict(job.given) for job in jobs}
        for modality in MODALITIES:
            slot = self.encoders.slots[modality]
            if not slot.encodes:
                continue
            inputs = {
                job: value
                for job in jobs
                if modality not in job.given and (value := _input(job, modality)) is not None
            }
            started = time.perf_counter()
            for job, vector in zip(inputs, slot.encode(list(inputs.values())), strict=True):
                if vector is not None:
                    found[job][modality] = vector
                else:
                    job.lack(modality, "unreadable", f"{slot.name} fails on it")
            self.metrics.encode_seconds.labels(modality).inc(time.perf_counter() - started)
        return found

    def _content(self, job: Job, vectors: dict[Modality, Float32]) -> ItemContent:
        item = job.item
        slots = self.encoders.slots
        return ItemContent(
            item_id=job.item_id,
            content_hash=job.content_hash,
            encoders=self.encoders.digest,
            source=job.source,
            encoded_at_ms=int(self.now_s() * 1000),
            language=(item.language if item is not None else None) or guess_language(job.text),
            labels=[] if item is None else list(item.tags),
            vectors=[
                EncodedVector(
                    modality=modality,
                    model=slots[modality].name,
                    # A vector from elsewhere is of a model by this name; of which version, nobody says.
                    version="" if modality in job.given else slots[modality].version,
                    values=packed_vector(vectors[modality]),
                )
                for modality in MODALITIES
                if modality in vectors
            ],
            missing=[job.missing[modality] for modality in MODALITIES if modality in job.missing],
        )

    def _account(self, result: Result) -> None:
        job, content = result.job, result.content
        self.n_done += 1
        if content is None:
            self.index.expect(job.item_id, withdrawn(job.source))
            self.metrics.items.labels("withdrawn").inc()
            return
        self.n_encoded += 1
        self.index.expect(job.item_id, known_of(content))
        self.metrics.items.labels("encoded").inc()
        self.metrics.background.inc(job.background)
        for vector in content.vectors:
            outcome = "given" if vector.modality in job.given else "encoded"
            self.metrics.modalities.labels(vector.modality, outcome).inc()
        cover = job.decoded.get("image")
        if self.encoders.reads_covers and isinstance(cover, Picture):
            read = "unread" if cover.text is None else "words" if cover.text else "none"
            self.metrics.covers.labels(read).inc()
        for one in content.missing:
            self.metrics.modalities.labels(one.modality, one.reason).inc()
        if job.retriable and job.attempt < self._retries:
            self.backfill.again(job.source, FIRST_RETRY_S * RETRY_FACTOR**job.attempt, job.attempt + 1)


def _input(job: Job, modality: Modality) -> Any | None:
    """What the encoder of a modality reads of a job, None where it has nothing."""
    if modality == "text":
        return job.text or None
    decoded = job.decoded.get(modality)
    if isinstance(decoded, Picture):
        return decoded.pixels
    if isinstance(decoded, Film):
        return decoded if len(decoded.frames) else None
    return decoded
