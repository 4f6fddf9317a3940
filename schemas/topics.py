"""Topic names and their broker configuration: the public contract of section Topics in docs.

Names are ``<prefix>.<entity>.v1``. Every input topic has a dead-letter topic ``<topic>.dlq``. The
model topics carry the model's name: ``<prefix>.model.<name>.<entity>.v1``.
"""

from __future__ import annotations

from msgspec import Struct

DAY_MS = 86_400_000
DEFAULT_PREFIX = "reelflow"
DEFAULT_PARTITIONS = 16
DEFAULT_MODEL = "main"
MAX_MESSAGE_BYTES = 1_048_576
"""Of a value, by contract."""

MAX_RECORD_BYTES = MAX_MESSAGE_BYTES + 65_536
"""Of a stored batch: a value of the largest size with its key, headers and the batch around it."""

MAX_LETTER_BYTES = 16 * 1_048_576
"""Of a dead letter: compressed producers can store values that are larger than the contract allows."""


class TopicSpec(Struct, frozen=True, kw_only=True):
    """One topic as it must exist on the broker."""

    name: str
    partitions: int
    key: str
    what: str
    configs: dict[str, str]


class TopicNames(Struct, frozen=True, kw_only=True):
    """The topic names under one prefix."""

    behaviour: str
    behaviour_dlq: str
    catalogue: str
    catalogue_dlq: str
    item_content: str
    item_tags: str
    recommendations: str
    erasure: str
    erasure_dlq: str


def topic_names(prefix: str = DEFAULT_PREFIX) -> TopicNames:
    """Names under `prefix`.

    >>> topic_names().recommendations
    'reelflow.recommendations.v1'
    """
    behaviour, catalogue, erasure = (
        f"{prefix}.{entity}.v1" for entity in ("behaviour", "catalogue", "erasure")
    )
    return TopicNames(
        behaviour=behaviour,
        behaviour_dlq=f"{behaviour}.dlq",
        catalogue=catalogue,
        catalogue_dlq=f"{catalogue}.dlq",
        item_content=f"{prefix}.item-content.v1",
        item_tags=f"{prefix}.item-tags.v1",
        recommendations=f"{prefix}.recommendations.v1",
        erasure=erasure,
        erasure_dlq=f"{erasure}.dlq",
    )


class ModelTopics(Struct, frozen=True, kw_only=True):
    """The topics through which one model reaches the rankers."""

    items: str
    users: str
    dense: str


def model_topics(prefix: str = DEFAULT_PREFIX, model: str = DEFAULT_MODEL) -> ModelTopics:
    """Names of the topics of `model` under `prefix`.

    >>> model_topics().items
    'reelflow.model.main.items.v1'
    """
    items, users, dense = (f"{prefix}.model.{model}.{entity}.v1" for entity in ("items", "users", "dense"))
    return ModelTopics(items=items, users=users, dense=dense)


def model_topic_specs(
    prefix: str = DEFAULT_PREFIX,
    partitions: int = DEFAULT_PARTITIONS,
    replication: int = 1,
    model: str = DEFAULT_MODEL,
) -> tuple[TopicSpec, ...]:
    """The model topics with their explicit configuration.

    Compacted, and quickly: a replica reads them from the beginning. Users have as many partitions
    as behaviour and the same partitioner, so that a ranker reads those of its own users.
    """
    names = model_topics(prefix, model)
    configs = {
        "cleanup.policy": "compact",
        "min.cleanable.dirty.ratio": "0.2",
        "segment.ms": str(3_600_000),
        "segment.bytes": str(64 * 1_048_576),
        "message.timestamp.type": "CreateTime",
        "max.message.bytes": str(MAX_RECORD_BYTES),
    }
    if replication > 1:
        configs["min.insync.replicas"] = "2"
    return (
        TopicSpec(
            name=names.items,
            partitions=partitions,
            key="item_id",
            what=f"items of the model {model}: transition row, vector, popularity",
            configs=dict(configs),
        ),
        TopicSpec(
            name=names.users,
            partitions=partitions,
            key="user_id",
            what=f"fine-tuned user rows of the model {model}",
            configs=dict(configs),
        ),
        TopicSpec(
            name=names.dense,
            partitions=1,
            key="parameter name",
            what=f"dense parameters and head of the model {model}",
            configs=dict(configs),
        ),
    )


def topic_specs(
    prefix: str = DEFAULT_PREFIX,
    partitions: int = DEFAULT_PARTITIONS,
    replication: int = 1,
) -> tuple[TopicSpec, ...]:
    """Every topic that all roles share, with its explicit configuration.

    Input topics use LogAppendTime: latency and future skew are measured against the
    broker's clock, not the producer's.
    """
    names = topic_names(prefix)
    size = {"max.message.bytes": str(MAX_RECORD_BYTES)}
    if replication > 1:
        size["min.insync.replicas"] = "2"
    log_time = {"message.timestamp.type": "LogAppendTime"}
    create_time = {"message.timestamp.type": "CreateTime"}
    delete = {"cleanup.policy": "delete"}
    # A withdrawal must outlive the events that name the item: a worker that folds the behaviour
    # log again would recommend the item otherwise.
    compact = {
        "cleanup.policy": "compact",
        "min.cleanable.dirty.ratio": "0.5",
        "delete.retention.ms": str(30 * DAY_MS),
    }
    dead = (
        delete | create_time | {"retention.ms": str(30 * DAY_MS), "max.message.bytes": str(MAX_LETTER_BYTES)}
    )
    return (
        TopicSpec(
            name=names.behaviour,
            partitions=partitions,
            key="user_id",
            what="behaviour events",
            configs=delete | log_time | size | {"retention.ms": str(7 * DAY_MS)},
        ),
        TopicSpec(
            name=names.behaviour_dlq,
            partitions=partitions,
            key="original key",
            what="behaviour events that could not be used",
            configs=dict(dead),
        ),
        TopicSpec(
            name=names.catalogue,
            partitions=partitions,
            key="item_id",
            what="item metadata and content; null withdraws the item",
            configs=compact | log_time | size,
        ),
        TopicSpec(
            name=names.catalogue_dlq,
            partitions=partitions,
            key="original key",
            what="catalogue items that could not be used",
            configs=dict(dead),
        ),
        TopicSpec(
            name=names.item_content,
            partitions=partitions,
            key="item_id",
            what="vectors of items by modality, from the content worker; null for a withdrawn item",
            configs=compact | log_time | size,
        ),
        TopicSpec(
            name=names.item_tags,
            partitions=partitions,
            key="item_id",
            what="tags found in items, from the content worker; null for a withdrawn item",
            configs=compact | log_time | size,
        ),
        TopicSpec(
            name=names.recommendations,
            partitions=partitions,
            key="user_id",
            what="recommendation snapshots, one a user; null after erasure",
            configs=create_time
            | size
            | {
                "cleanup.policy": "compact,delete",
                "retention.ms": str(30 * DAY_MS),
                "min.cleanable.dirty.ratio": "0.5",
            },
        ),
        TopicSpec(
            name=names.erasure,
            partitions=partitions,
            key="user_id",
            what="erasure requests and receipts",
            configs=delete | log_time | size | {"retention.ms": str(30 * DAY_MS)},
        ),
        TopicSpec(
            name=names.erasure_dlq,
            partitions=partitions,
            key="original key",
            what="erasure requests that could not be used",
            configs=dict(dead),
        ),
    )
