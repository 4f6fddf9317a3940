"""Settings: defaults < TOML file < environment < command-line flags; unknown keys are refused.

``REELFLOW_<SECTION>_<KEY>`` in the environment, ``[section] key = value`` in the file named by
``--config`` or ``REELFLOW_CONFIG``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from .content_settings import ContentSettings
from .errors import ConfigurationError
from .signals import SignalSettings, signal_table
from .topics import DEFAULT_MODEL, DEFAULT_PARTITIONS, DEFAULT_PREFIX

ENV_PREFIX = "REELFLOW_"
_NON_SECTION_ENV = frozenset({"REELFLOW_CONFIG", "REELFLOW_HOME"})

Port = Annotated[int, Meta(ge=0, le=65535)]
PositiveInt = Annotated[int, Meta(ge=1, le=2**31 - 1)]
DurationMs = Annotated[int, Meta(ge=0, le=100 * 365 * 86_400_000)]
HalfLifeHours = Annotated[float, Meta(ge=0.001, le=1e6)]
Ratio = Annotated[float, Meta(ge=0, le=1)]


class KafkaSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to reach Kafka; security keys are passed through to every client."""

    bootstrap: Annotated[
        Annotated[str, Meta(min_length=1)], Meta(description="brokers, comma-separated host:port")
    ] = "127.0.0.1:9092"
    prefix: Annotated[
        Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9._-]*$")],
        Meta(description="first part of every topic name"),
    ] = DEFAULT_PREFIX
    partitions: Annotated[
        Annotated[int, Meta(ge=1, le=10_000)],
        Meta(description="partitions of each topic; must be what the topics have"),
    ] = DEFAULT_PARTITIONS
    replication: Annotated[
        Annotated[int, Meta(ge=1, le=10)], Meta(description="replication factor that `topics create` uses")
    ] = 1
    security_protocol: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"], Meta(description="as in Kafka clients")
    ] = "PLAINTEXT"
    sasl_mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None, Meta(description="as in Kafka clients")
    ] = None
    sasl_username: Annotated[str | None, Meta(description="for SASL")] = None
    sasl_password: Annotated[str | None, Meta(description="for SASL; masked in output")] = None
    ssl_cafile: Annotated[str | None, Meta(description="certificate authority, PEM")] = None
    ssl_certfile: Annotated[str | None, Meta(description="client certificate, PEM")] = None
    ssl_keyfile: Annotated[str | None, Meta(description="client key, PEM")] = None


class WorkerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The main job: learner and ranker in one process."""

    model_name: Annotated[
        Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")],
        Meta(description="names the model in snapshots and in its topics"),
    ] = DEFAULT_MODEL
    group_id: Annotated[
        str | None, Meta(description="consumer group; default <prefix>.worker.<model_name>")
    ] = None
    instance_id: Annotated[
        str | None,
        Meta(
            description="static member of the group: a process started again in its place goes on at once;"
            " each process needs its own"
        ),
    ] = None
    host: Annotated[str, Meta(description="address of the worker port")] = "127.0.0.1"
    port: Annotated[Port, Meta(description="port for metrics, health and questions; 0 picks a free one")] = (
        6066
    )
    queue_runs: Annotated[
        Annotated[int, Meta(ge=1, le=1024)],
        Meta(description="fetched runs that may wait for the learner thread"),
    ] = 16
    max_run_records: Annotated[
        Annotated[int, Meta(ge=1, le=100_000)],
        Meta(description="most records in one run, and about as many in a batch of what is behind"),
    ] = 16_384
    threads: Annotated[
        Annotated[int, Meta(ge=0, le=2)],
        Meta(description="threads that share the work of large batches; 0 for 2 where there are two cores"),
    ] = 0
    max_in_flight_mib: Annotated[
        Annotated[int, Meta(ge=1, le=65_536)],
        Meta(description="most MiB of fetched runs that wait, 16 MiB a broker aside"),
    ] = 64
    max_wait_ms: Annotated[
        Annotated[int, Meta(ge=0, le=1_000)],
        Meta(description="longest that fetched records rest so that small runs grow, ms; 0 never"),
    ] = 30
    heavy_user_share: Annotated[
        Ratio,
        Meta(description="a user who sends this share of the events is named in the log; 0 nobody is"),
    ] = 0.2
    tick_ms: Annotated[Annotated[int, Meta(ge=1, le=10_000)], Meta(description="pace of publishing, ms")] = 20
    refresh_interval_ms: Annotated[
        Annotated[int, Meta(ge=0, le=3_600_000)],
        Meta(description="at most one snapshot a user per this many ms"),
    ] = 500
    lateness_ms: Annotated[
        DurationMs,
        Meta(description="events further behind the partition watermark are dead letters"),
    ] = 7 * 86_400_000
    future_skew_ms: Annotated[
        DurationMs,
        Meta(description="events further ahead of the broker clock are dead letters"),
    ] = 300_000
    dedup_window: Annotated[
        Annotated[int, Meta(ge=1_024, le=100_000_000)],
        Meta(description="events a partition within which an event_id is recognised again"),
    ] = 1_000_000
    compression: Annotated[
        Literal["none", "gzip", "snappy", "lz4", "zstd"],
        Meta(description="codec of published messages; none where a client lacks the library to read it"),
    ] = "lz4"
    hash_key: Annotated[
        str,
        Meta(
            pattern="^[0-9a-f]{32}$",
            description="key of the event_id hashes, 32 hex digits; choose your own where any may produce",
        ),
    ] = "7265656c666c6f77206576656e742069"
    session_gap_ms: Annotated[PositiveInt, Meta(description="a pause this long starts a new session")] = (
        1_800_000
    )
    stuck_after_s: Annotated[
        Annotated[float, Meta(gt=0, le=86_400)],
        Meta(description="a batch that takes longer ends the process"),
    ] = 120.0
    state_dir: Annotated[
        str, Meta(description="folder or URL of checkpoints and journals; empty for `state` in REELFLOW_HOME")
    ] = ""
    checkpoint_interval_s: Annotated[
        Annotated[float, Meta(gt=0, le=86_400)], Meta(description="seconds between checkpoints, at least")
    ] = 5.0
    checkpoints_kept: Annotated[
        Annotated[int, Meta(ge=1, le=1_000)],
        Meta(description="checkpoints that stay when newer ones are made"),
    ] = 3


ObjectiveWeight = Annotated[float, Meta(ge=0, le=100)]


class ObjectiveSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What each kind of evidence weighs in the loss of the embeddings; 0 leaves it out."""

    watch: Annotated[ObjectiveWeight, Meta(description="times omega of a watch, join or leave")] = 1.0
    engagement: Annotated[
        ObjectiveWeight, Meta(description="times omega of a like, favourite, comment, share, follow or gift")
    ] = 1.0
    rejection: Annotated[ObjectiveWeight, Meta(description="times |omega| of a skip, dislike or swipe")] = 1.0
    ignored: Annotated[ObjectiveWeight, Meta(description="of an ignored impression")] = 0.1


class LearnerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is learned and how."""

    seed: Annotated[Annotated[int, Meta(ge=0)], Meta(description="of every pseudo-random choice")] = 0
    embeddings: Annotated[
        bool,
        Meta(
            description="learn torch embeddings, co-occurrence and EASE, or just transitions and popularity"
        ),
    ] = True
    device: Annotated[
        Annotated[str, Meta(pattern=r"^(auto|cpu|cuda(:\d+)?)$")],
        Meta(description="auto, cpu, cuda or cuda:N"),
    ] = "auto"
    dim: Annotated[Annotated[int, Meta(ge=4, le=1024)], Meta(description="width of vectors")] = 64
    attention_heads: Annotated[
        Annotated[int, Meta(ge=0, le=8)],
        Meta(description="attention heads of the sequence encoder beside its pooling; 0 for none"),
    ] = 0
    loss: Annotated[
        Literal["softmax", "bce", "bpr"], Meta(description="loss of the embeddings over sampled negatives")
    ] = "softmax"
    optimizer: Annotated[
        Literal["adagrad", "adam", "sgd"], Meta(description="how item and user vectors move, one rate a row")
    ] = "adagrad"
    learning_rate: Annotated[
        Annotated[float, Meta(gt=0, le=100)] | None,
        Meta(description="of item and user vectors; default 0.1, with adam 0.01"),
    ] = None
    in_batch_negatives: Annotated[
        bool, Meta(description="the other targets of a step are negatives too, beside those drawn")
    ] = False
    shifted_contexts: Annotated[
        Annotated[int, Meta(ge=0, le=8)],
        Meta(description="learn a target also from the history without its last 1, 2, ... items"),
    ] = 0
    item_admission: Annotated[
        Annotated[int, Meta(ge=1, le=255)],
        Meta(description="events after which an item gets an embedding row; 1 at the first"),
    ] = 1
    user_admission: Annotated[
        Annotated[int, Meta(ge=1, le=255)],
        Meta(description="positives after which a user gets an embedding row; 1 at the first"),
    ] = 1
    user_idle_days: Annotated[
        Annotated[float, Meta(gt=0, le=36_500)] | None,
        Meta(description="days of event time without an event after which a user's embedding row is freed"),
    ] = 180.0
    objectives: Annotated[
        ObjectiveSettings,
        Meta(description="what each kind of evidence weighs: [embeddings.md](embeddings.md)"),
    ] = ObjectiveSettings()
    mixed_precision: Annotated[
        bool, Meta(description="bfloat16 products with negatives; no faster where measured")
    ] = False
    history: Annotated[Annotated[int, Meta(ge=8, le=200)], Meta(description="recent items kept a user")] = 50
    seen: Annotated[
        Annotated[int, Meta(ge=8, le=4096)],
        Meta(description="consumed items kept a user and left out of lists"),
    ] = 128
    household_hours: Annotated[
        Annotated[float, Meta(ge=-1, le=12)],
        Meta(description="times of day on tv so near are one viewer's, hours; below 0 it has but one"),
    ] = 2.5
    live_half_life_min: Annotated[
        Annotated[float, Meta(ge=0.1, le=1_440)], Meta(description="half-life of a live room's heat, minutes")
    ] = 5.0
    transition_width: Annotated[
        Annotated[int, Meta(ge=4, le=512)], Meta(description="neighbours kept an item")
    ] = 64
    transition_half_life_h: Annotated[HalfLifeHours, Meta(description="half-life of transitions, hours")] = (
        24.0 * 1_000
    )
    popularity_half_lives_h: Annotated[
        Annotated[tuple[HalfLifeHours, ...], Meta(min_length=1, max_length=4)],
        Meta(description="half-lives of popularity, hours"),
    ] = (24.0, 240.0)
    probabilities: Annotated[
        bool,
        Meta(
            description="learn probabilities of click, completion and like, for `POST /v1/users/{id}/score`"
            " and `ranker.order_weights`: [probability.md](probability.md)"
        ),
    ] = False
    probabilities_per_s: Annotated[
        Annotated[float, Meta(ge=0, le=1e6)],
        Meta(description="exposures a second of event time that they learn from at most, evenly; 0 all"),
    ] = 500.0
    probability_bits: Annotated[
        Annotated[int, Meta(ge=10, le=24)],
        Meta(description="memory for them: 40 MB at 18, twice as much with each more"),
    ] = 18
    attribution_s: Annotated[
        Annotated[float, Meta(gt=0, le=86_400)],
        Meta(description="seconds of event time in which an act belongs to what was shown"),
    ] = 1_800.0
    drift_delta: Annotated[
        Annotated[float, Meta(ge=0, lt=1)],
        Meta(description="of ADWIN over what becomes of listed items: less is slower and surer; 0 is off"),
    ] = 1e-4
    adapt_to_drift: Annotated[
        bool,
        Meta(description="learn faster for a while when viewers turn away from their lists"),
    ] = False
    tastes: Annotated[
        bool,
        Meta(
            description="order the worker's lists by what viewers take up when shown, beside what is next"
            " ([learners.md](learners.md#tastes)); needs learner.embeddings, separate rankers do without"
        ),
    ] = False
    content: Annotated[
        bool,
        Meta(
            description="read item-content and item-tags: new items are recommended by what they are"
            " ([content.md](content.md#before-anyone-has-watched-it)); needs learner.embeddings"
        ),
    ] = False
    content_models: Annotated[
        Annotated[
            tuple[Annotated[str, Meta(pattern=r"^(text|image|audio|video)=[^:\s]+:[0-9]{1,4}$")], ...],
            Meta(min_length=1, max_length=4),
        ],
        Meta(description="models of the vectors that are used, MODALITY=NAME:DIMS; others are not looked at"),
    ] = (
        "text=use-multilingual-3:512",
        "image=open-nsfw-resnet:1024",
        "audio=log-mel-statistics:192",
        "video=frames-open-nsfw-resnet:1024",
    )
    sync_interval_s: Annotated[
        Annotated[float, Meta(gt=0, le=60)],
        Meta(description="a separate learner publishes what changed this often, seconds"),
    ] = 1.0
    sync_bytes_per_s: Annotated[
        PositiveInt, Meta(description="most bytes a second for the model topics; largest changes first")
    ] = 8 * 1_048_576
    max_items: Annotated[PositiveInt, Meta(description="items beyond are dead letters (capacity)")] = (
        2_000_000
    )
    max_users: Annotated[PositiveInt, Meta(description="users beyond are dead letters (capacity)")] = (
        20_000_000
    )


class OrderSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the order of a list is a mix of; 0 leaves it out. Nothing that is learned depends on it."""

    next_item: Annotated[ObjectiveWeight, Meta(description="what is likely to be taken up next")] = 1.0
    click: Annotated[ObjectiveWeight, Meta(description="times log p_click")] = 0.0
    completion: Annotated[ObjectiveWeight, Meta(description="times log p_completion")] = 0.0
    like: Annotated[ObjectiveWeight, Meta(description="times log p_like")] = 0.0


Exploration = Annotated[float, Meta(ge=0, le=1_000)]


class VariantSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A way to make lists; what it does not name is as the section `ranker` has it."""

    order_weights: OrderSettings | None = None
    live_exploration: Exploration | None = None
    content_exploration: Ratio | None = None
    taste_weight: Annotated[float, Meta(ge=0, le=100)] | None = None


VariantName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]


class RankerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a published list looks like."""

    list_size: Annotated[Annotated[int, Meta(ge=1, le=500)], Meta(description="items in a list")] = 20
    ttl_ms: Annotated[PositiveInt, Meta(description="consumers should treat an older list as stale, ms")] = (
        3_600_000
    )
    live_exploration: Annotated[
        Exploration,
        Meta(description="heat that every open room is given in the draw of a list's room"),
    ] = 0.5
    content_exploration: Annotated[
        Ratio,
        Meta(
            description="share of a list's places for new items near its user, one at most (learner.content)"
        ),
    ] = 0.05
    order_weights: Annotated[
        OrderSettings,
        Meta(
            description="what the order of a list is a mix of; all but next_item need learner.probabilities:"
            " [probability.md](probability.md#order)"
        ),
    ] = OrderSettings()
    variants: Annotated[
        Annotated[dict[VariantName, VariantSettings], Meta(max_length=8)],
        Meta(
            description="ways to make lists, name to the settings that differ, of which a bandit chooses by"
            " what becomes of their items: [variants.md](variants.md)"
        ),
    ] = {}
    variant_floor: Annotated[Ratio, Meta(description="share of lists that every variant has at least")] = 0.05
    variant_memory: Annotated[
        Annotated[int, Meta(ge=100, le=100_000_000)],
        Meta(description="views of listed items after which what was learned of variants has faded to 1/e"),
    ] = 20_000
    exclude_seen: Annotated[bool, Meta(description="leave out what the user consumed")] = True
    follow_model: Annotated[
        str | None, Meta(description="model that a separate ranker follows; default worker.model_name")
    ] = None
    stale_model_after_s: Annotated[
        Annotated[float, Meta(gt=0, le=1e6)],
        Meta(description="a separate ranker marks lists of a model that has been silent for longer"),
    ] = 30.0
    evaluate_ratio: Annotated[Ratio, Meta(description="share of micro-batches scored before learning")] = 1.0
    evaluate_budget_us: Annotated[
        Annotated[float, Meta(ge=0, le=1e6)],
        Meta(description="most microseconds of scoring an event learned; beyond, scoring is sampled"),
    ] = 20.0
    evaluate_fading: Annotated[
        Annotated[float, Meta(gt=0, le=1)],
        Meta(description="weight of a score falls by this factor with every later one"),
    ] = 0.9999


class GatewaySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The HTTP side."""

    host: Annotated[str, Meta(description="address of the gateway")] = "127.0.0.1"
    port: Annotated[Port, Meta(description="port of the gateway; 0 picks a free one")] = 8080
    worker_url: Annotated[str, Meta(description="the worker port behind the gateway")] = (
        "http://127.0.0.1:6066"
    )
    max_body_bytes: Annotated[PositiveInt, Meta(description="largest request body")] = 1_048_576
    max_streams: Annotated[PositiveInt, Meta(description="most open event streams")] = 1_000
    max_users: Annotated[PositiveInt, Meta(description="users whose newest list is kept in memory")] = 200_000
    search: Annotated[
        bool,
        Meta(
            description="hold the vectors of item-content in memory, for `GET /v1/search` and what is similar"
            " to items without events; needs the extra content"
        ),
    ] = False


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All sections."""

    kafka: KafkaSettings = KafkaSettings()
    worker: WorkerSettings = WorkerSettings()
    learner: LearnerSettings = LearnerSettings()
    ranker: RankerSettings = RankerSettings()
    gateway: GatewaySettings = GatewaySettings()
    content: ContentSettings = ContentSettings()
    signals: SignalSettings = SignalSettings()


_SECTIONS: dict[str, type[Struct]] = {
    "kafka": KafkaSettings,
    "worker": WorkerSettings,
    "learner": LearnerSettings,
    "ranker": RankerSettings,
    "gateway": GatewaySettings,
    "content": ContentSettings,
    "signals": SignalSettings,
}


def load_settings(
    environ: Mapping[str, str],
    config: Path | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> Settings:
    """Resolve settings; `overrides` (section -> key -> value, None ignored) come from flags.

    Raises
    ------
    ConfigurationError
        Names the first setting that is unknown or out of range.
    """
    path = config if config is not None else (Path(p) if (p := environ.get("REELFLOW_CONFIG")) else None)
    merged: dict[str, dict[str, Any]] = {name: {} for name in _SECTIONS}
    if path is not None:
        for section, values in _read_toml(path).items():
            if section not in _SECTIONS:
                raise ConfigurationError(section, f"unknown section in {path}")
            if not isinstance(values, dict):
                raise ConfigurationError(section, f"must be a table in {path}")
            _merge(merged[section], values)
    for name, text in environ.items():
        if not name.startswith(ENV_PREFIX) or name in _NON_SECTION_ENV:
            continue
        section, _, key = name[len(ENV_PREFIX) :].lower().partition("_")
        if section not in _SECTIONS or key not in _SECTIONS[section].__struct_fields__:
            raise ConfigurationError(name, "unknown setting in the environment")
        _merge(merged[section], {key: _from_text(text)})
    for section, values in (overrides or {}).items():
        _merge(merged[section], {k: v for k, v in values.items() if v is not None})
    resolved: dict[str, Any] = {}
    for section, cls in _SECTIONS.items():
        try:
            resolved[section] = msgspec.convert(merged[section], cls, strict=False)
        except msgspec.ValidationError as error:
            raise _named(section, error) from None
    return Settings(**resolved)


def assigned(texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Overrides for `load_settings` from texts ``section.name=value``; lists as in JSON, later texts win.

    >>> assigned(["learner.dim=32"])
    {'learner': {'dim': '32'}}

    Raises
    ------
    ConfigurationError
        A text reads otherwise, or there is no such section; `load_settings` looks at names and values.
    """
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, is_assigned, value = text.partition("=")
        section, _, key = name.strip().partition(".")
        if not is_assigned or not key:
            raise ConfigurationError(text, "must read section.name=value")
        if section not in _SECTIONS:
            raise ConfigurationError(name, f"unknown section; there are {', '.join(_SECTIONS)}")
        found.setdefault(section, {})[key] = _from_text(value.strip())
    return found


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError("REELFLOW_CONFIG", f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError("REELFLOW_CONFIG", f"{path} is not valid TOML: {error}") from None


def _merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Take over values; of a table within a section only what it names."""
    for key, value in values.items():
        before = into.get(key)
        both = isinstance(before, dict) and isinstance(value, dict)
        into[key] = before | value if both and before is not None else value


def _from_text(text: str) -> Any:
    if text.startswith(("[", "{")):
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError:
            return text
    return text


def _named(section: str, error: msgspec.ValidationError) -> ConfigurationError:
    message, _, where = str(error).replace("`key` in ", "").partition(" - at `$")
    named = f"{section}{where.rstrip('`')}"
    if "unknown field `" in message:
        return ConfigurationError(f"{named}.{message.split('`')[1]}", "unknown setting")
    return ConfigurationError(named, message)


def reference() -> str:
    """Every setting as Markdown tables; docs/settings.md is this text."""
    schema = msgspec.json.schema(Settings)["$defs"]
    lines = [
        "# Settings",
        "",
        "Defaults < TOML file (`--config` or `REELFLOW_CONFIG`) < environment < command-line flags. In the",
        "file: `[worker]` and `port = 6066`; in the environment: `REELFLOW_WORKER_PORT=6066`. Unknown",
        "settings are refused by name. `reelflow config` prints what was resolved. `REELFLOW_HOME` moves",
        "the cache folder.",
    ]
    for section, cls in _SECTIONS.items():
        lines += ["", f"## {section}", cls.__doc__ or "", ""]
        if cls is SignalSettings:
            lines += signal_table()
            continue
        lines += ["| key | default | meaning |", "|---|---|---|"]
        for key, value in schema[cls.__name__]["properties"].items():
            lines.append(
                f"| {key} | `{msgspec.json.encode(value.get('default')).decode()}` | {value['description']} |"
            )
    return "\n".join(lines) + "\n"
