"""What every command shares: resolved settings and client configurations."""

from __future__ import annotations

import gc
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from schemas.errors import ConfigurationError
from schemas.settings import KafkaSettings, Settings, load_settings


def settings_from(ctx: click.Context, **overrides: Mapping[str, Any]) -> Settings:
    """Settings of this invocation; `overrides` by section, None values ignored."""
    root = ctx.find_root()
    config: Path | None = root.params.get("config")
    return load_settings(os.environ, config, overrides)


def collect_rarely() -> None:
    """Let the cyclic collector look less often, for processes that make arrays rather than graphs."""
    gc.set_threshold(50_000, 20, 100)


def collect_later() -> None:
    """Stop the cyclic collector until the role has started: what packages make while they load stays.

    Called before torch, numba and Faust are imported it saves a fifth of their time.
    """
    gc.disable()


def home_dir() -> Path:
    """Where reelflow keeps what it caches: ``REELFLOW_HOME`` or the user's cache folder."""
    if path := os.environ.get("REELFLOW_HOME"):
        return Path(path)
    import platformdirs

    return Path(platformdirs.user_cache_dir("reelflow", appauthor=False))


def state_url(settings: Settings) -> str:
    """Where checkpoints are: ``worker.state_dir``, by default a folder below `home_dir`."""
    return settings.worker.state_dir or str(home_dir() / "state")


def state_folder(settings: Settings, role: str) -> str:
    """Folder of a role's state in the store: of one prefix, role and model there is one writer."""
    return f"{settings.kafka.prefix}/{role}/{settings.worker.model_name}"


def tls_context(kafka: KafkaSettings) -> ssl.SSLContext | None:
    """TLS as the settings have it, None without; clients themselves hide a wrong file in a retry.

    Raises
    ------
    ConfigurationError
        A file cannot be read or is not what it should be; names its setting.
    """
    for setting in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
        path: str | None = getattr(kafka, setting)
        if path is not None:
            try:
                with Path(path).open("rb"):
                    pass
            except OSError as error:
                raise ConfigurationError(
                    f"kafka.{setting}", f"cannot read {path}: {error.strerror}"
                ) from None
    if kafka.security_protocol not in {"SSL", "SASL_SSL"}:
        return None
    try:
        context = ssl.create_default_context(cafile=kafka.ssl_cafile)
    except ssl.SSLError as error:
        raise ConfigurationError("kafka.ssl_cafile", f"{kafka.ssl_cafile}: {error}") from None
    if kafka.ssl_certfile is not None:
        try:
            context.load_cert_chain(kafka.ssl_certfile, kafka.ssl_keyfile)
        except ssl.SSLError as error:
            files = " with ".join(filter(None, (kafka.ssl_certfile, kafka.ssl_keyfile)))
            raise ConfigurationError("kafka.ssl_certfile", f"{files}: {error}") from None
    return context


def kafka_python_config(kafka: KafkaSettings) -> dict[str, Any]:
    """Keyword arguments shared by kafka-python clients."""
    tls_context(kafka)
    config: dict[str, Any] = {
        "bootstrap_servers": kafka.bootstrap.split(","),
        "security_protocol": kafka.security_protocol,
    }
    optional = {
        "sasl_mechanism": kafka.sasl_mechanism,
        "sasl_plain_username": kafka.sasl_username,
        "sasl_plain_password": kafka.sasl_password,
        "ssl_cafile": kafka.ssl_cafile,
        "ssl_certfile": kafka.ssl_certfile,
        "ssl_keyfile": kafka.ssl_keyfile,
    }
    return config | {name: value for name, value in optional.items() if value is not None}


def confluent_config(kafka: KafkaSettings) -> dict[str, Any]:
    """Configuration shared by confluent-kafka clients.

    murmur2_random is what the Java client and kafka-python do; librdkafka's own default puts a
    key on another partition, where its user's order would be lost.
    """
    tls_context(kafka)
    config: dict[str, Any] = {
        "bootstrap.servers": kafka.bootstrap,
        "security.protocol": kafka.security_protocol,
        "partitioner": "murmur2_random",
    }
    optional = {
        "sasl.mechanism": kafka.sasl_mechanism,
        "sasl.username": kafka.sasl_username,
        "sasl.password": kafka.sasl_password,
        "ssl.ca.location": kafka.ssl_cafile,
        "ssl.certificate.location": kafka.ssl_certfile,
        "ssl.key.location": kafka.ssl_keyfile,
    }
    return config | {name: value for name, value in optional.items() if value is not None}
