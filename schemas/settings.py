"""Settings: defaults < TOML file < environment < command-line flags; unknown keys are refused.

``REELFLOW_<SECTION>_<KEY>`` in the environment, ``[section] key = value`` in the file named by
``--config`` or ``REELFLOW_CONFIG``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from .errors import ConfigurationError
from .topics import DEFAULT_PARTITIONS, DEFAULT_PREFIX

ENV_PREFIX = "REELFLOW_"
_NON_SECTION_ENV = frozenset({"REELFLOW_CONFIG", "REELFLOW_HOME"})

Port = Annotated[int, Meta(ge=0, le=65535)]
PositiveInt = Annotated[int, Meta(ge=1)]
Ratio = Annotated[float, Meta(ge=0, le=1)]


class KafkaSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to reach Kafka; security keys are passed through to every client."""

    bootstrap: Annotated[str, Meta(min_length=1)] = "127.0.0.1:9092"
    prefix: Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9._-]*$")] = (
        DEFAULT_PREFIX
    )
    partitions: Annotated[int, Meta(ge=1, le=10_000)] = DEFAULT_PARTITIONS
    replication: Annotated[int, Meta(ge=1, le=10)] = 1
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: str | None = None
    sasl_password: str | None = None
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None


class WorkerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The main job: learner and ranker in one process."""

    model_name: Annotated[str, Meta(min_length=1, max_length=64)] = "main"
    group_id: str | None = None
    host: str = "127.0.0.1"
    port: Port = 6066
    queue_runs: Annotated[int, Meta(ge=1, le=1024)] = 16
    max_run_records: Annotated[int, Meta(ge=1, le=100_000)] = 4_096
    tick_ms: Annotated[int, Meta(ge=1, le=10_000)] = 20
    refresh_interval_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = 500
    lateness_ms: Annotated[int, Meta(ge=0)] = 7 * 86_400_000
    future_skew_ms: Annotated[int, Meta(ge=0)] = 300_000
    dedup_window: Annotated[int, Meta(ge=1_024, le=100_000_000)] = 1_000_000
    session_gap_ms: PositiveInt = 1_800_000
    stuck_after_s: Annotated[float, Meta(gt=0)] = 120.0


class LearnerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is learned and how."""

    seed: Annotated[int, Meta(ge=0)] = 0
    embeddings: bool = True
    device: Annotated[str, Meta(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    dim: Annotated[int, Meta(ge=4, le=1024)] = 64
    history: Annotated[int, Meta(ge=8, le=200)] = 50
    seen: Annotated[int, Meta(ge=8, le=4096)] = 128
    transition_width: Annotated[int, Meta(ge=4, le=512)] = 64
    transition_half_life_h: Annotated[float, Meta(gt=0)] = 24.0 * 30
    popularity_half_lives_h: Annotated[tuple[float, ...], Meta(min_length=1, max_length=4)] = (6.0, 24.0 * 7)
    max_items: PositiveInt = 2_000_000
    max_users: PositiveInt = 20_000_000


class RankerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a published list looks like."""

    list_size: Annotated[int, Meta(ge=1, le=500)] = 20
    ttl_ms: PositiveInt = 3_600_000
    exclude_seen: bool = True
    evaluate_ratio: Ratio = 1.0


class GatewaySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The HTTP side."""

    host: str = "127.0.0.1"
    port: Port = 8080
    worker_url: str = "http://127.0.0.1:6066"
    max_body_bytes: PositiveInt = 1_048_576
    max_streams: PositiveInt = 1_000


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All sections."""

    kafka: KafkaSettings = KafkaSettings()
    worker: WorkerSettings = WorkerSettings()
    learner: LearnerSettings = LearnerSettings()
    ranker: RankerSettings = RankerSettings()
    gateway: GatewaySettings = GatewaySettings()


_SECTIONS: dict[str, type[Struct]] = {
    "kafka": KafkaSettings,
    "worker": WorkerSettings,
    "learner": LearnerSettings,
    "ranker": RankerSettings,
    "gateway": GatewaySettings,
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
            merged[section].update(values)
    for name, text in environ.items():
        if not name.startswith(ENV_PREFIX) or name in _NON_SECTION_ENV:
            continue
        section, _, key = name[len(ENV_PREFIX) :].lower().partition("_")
        if section not in _SECTIONS or key not in _SECTIONS[section].__struct_fields__:
            raise ConfigurationError(name, "unknown setting in the environment")
        merged[section][key] = _from_text(text)
    for section, values in (overrides or {}).items():
        merged[section].update({k: v for k, v in values.items() if v is not None})
    resolved: dict[str, Any] = {}
    for section, cls in _SECTIONS.items():
        try:
            resolved[section] = msgspec.convert(merged[section], cls, strict=False)
        except msgspec.ValidationError as error:
            raise _named(section, error) from None
    return Settings(**resolved)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError("REELFLOW_CONFIG", f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError("REELFLOW_CONFIG", f"{path} is not valid TOML: {error}") from None


def _from_text(text: str) -> Any:
    if text.startswith("["):
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError:
            return text
    return text


def _named(section: str, error: msgspec.ValidationError) -> ConfigurationError:
    text = str(error)
    message, _, where = text.partition(" - at `$")
    if where:
        return ConfigurationError(f"{section}{where.rstrip('`')}", message)
    if "unknown field `" in message:
        return ConfigurationError(f"{section}.{message.split('`')[1]}", "unknown setting")
    return ConfigurationError(section, message)
