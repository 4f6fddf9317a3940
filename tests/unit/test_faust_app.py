"""Settings that reach Faust."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from faust.auth import SASLCredentials, SSLCredentials
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth, server_list

from schemas.errors import ConfigurationError
from schemas.settings import KafkaSettings, Settings, WorkerSettings
from streams.context import confluent_config, kafka_python_config
from streams.faust_app import build_app, credentials, group_id


def test_group_comes_from_the_setting_or_from_prefix_role_and_model() -> None:
    assert group_id(Settings(worker=WorkerSettings(group_id="mine"))) == "mine"
    settings = Settings(kafka=KafkaSettings(prefix="p"), worker=WorkerSettings(model_name="m"))
    assert group_id(settings) == "p.worker.m"
    assert build_app(settings).conf.id == "p.worker.m"


def test_every_bootstrap_server_is_used() -> None:
    app = build_app(Settings(kafka=KafkaSettings(bootstrap="a:1, b:2")))
    assert server_list(app.transport.url, 9092) == ["a:1", "b:2"]
    assert app.transport.driver_version.startswith("reelflow")


def test_security_settings_reach_the_client() -> None:
    assert credentials(KafkaSettings()) is None
    plain = credentials(
        KafkaSettings(
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism="SCRAM-SHA-512",
            sasl_username="u",
            sasl_password="p",  # noqa: S106 - not a secret
        )
    )
    assert isinstance(plain, SASLCredentials)
    sent = credentials_to_aiokafka_auth(plain)
    assert sent["security_protocol"] == "SASL_PLAINTEXT"
    assert sent["sasl_mechanism"] == "SCRAM-SHA-512"
    assert (sent["sasl_plain_username"], sent["sasl_plain_password"]) == ("u", "p")
    assert sent["ssl_context"] is None
    secure = credentials(KafkaSettings(security_protocol="SASL_SSL", sasl_username="u", sasl_password="p"))  # noqa: S106 - not a secret
    sent = credentials_to_aiokafka_auth(secure)
    assert sent["security_protocol"] == "SASL_SSL"
    assert sent["sasl_mechanism"] == "PLAIN"
    assert sent["ssl_context"] is not None
    tls = credentials(KafkaSettings(security_protocol="SSL"))
    assert isinstance(tls, SSLCredentials)
    assert credentials_to_aiokafka_auth(tls)["security_protocol"] == "SSL"


@pytest.mark.parametrize("setting", ["ssl_cafile", "ssl_certfile", "ssl_keyfile"])
@pytest.mark.parametrize("configure", [credentials, kafka_python_config, confluent_config])
def test_a_tls_file_that_cannot_be_read_is_named(
    setting: str, configure: Callable[[KafkaSettings], object]
) -> None:
    kafka = KafkaSettings(security_protocol="SSL", **{setting: "/nowhere/at-all.pem"})  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=f"kafka.{setting}: cannot read /nowhere"):
        configure(kafka)


@pytest.mark.parametrize("setting", ["ssl_cafile", "ssl_certfile"])
@pytest.mark.parametrize("configure", [credentials, kafka_python_config, confluent_config])
def test_a_file_that_is_no_certificate_is_named(
    setting: str, configure: Callable[[KafkaSettings], object], tmp_path: Path
) -> None:
    file = tmp_path / "some.pem"
    file.write_text("not a certificate")
    with pytest.raises(ConfigurationError, match=rf"kafka\.{setting}.*some\.pem"):
        configure(KafkaSettings(security_protocol="SSL", **{setting: str(file)}))  # type: ignore[arg-type]
