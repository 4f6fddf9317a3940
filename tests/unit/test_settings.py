"""Settings: precedence, refusals that name the setting, and the reference in the docs."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.errors import ConfigurationError
from schemas.settings import load_settings, reference


def test_precedence(tmp_path: Path) -> None:
    file = tmp_path / "reelflow.toml"
    file.write_text("[worker]\nport = 1\ntick_ms = 2\nqueue_runs = 3\n")
    settings = load_settings(
        {"REELFLOW_WORKER_TICK_MS": "20", "REELFLOW_WORKER_QUEUE_RUNS": "30"},
        file,
        {"worker": {"queue_runs": 300, "port": None}},
    )
    assert (settings.worker.port, settings.worker.tick_ms, settings.worker.queue_runs) == (1, 20, 300)


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"REELFLOW_KAFKA_PARTITIONS": "0"}, "kafka.partitions"),
        ({"REELFLOW_KAFKA_PARTITIONS": "many"}, "kafka.partitions"),
        ({"REELFLOW_KAFKA_PARTITION": "1"}, "REELFLOW_KAFKA_PARTITION"),
        ({"REELFLOW_NONSENSE": "1"}, "REELFLOW_NONSENSE"),
        ({"REELFLOW_LEARNER_DEVICE": "gpu"}, "learner.device"),
        ({"REELFLOW_RANKER_EVALUATE_RATIO": "1.5"}, "ranker.evaluate_ratio"),
        ({"REELFLOW_LEARNER_POPULARITY_HALF_LIVES_H": "[]"}, "learner.popularity_half_lives_h"),
        ({"REELFLOW_SIGNALS_LIVE": '{"gift": -1}'}, "signals.live.gift"),
        ({"REELFLOW_SIGNALS_LIVE": '{"gift": '}, "signals.live"),
        ({"REELFLOW_SIGNALS_RADIO": "{}"}, "REELFLOW_SIGNALS_RADIO"),
        ({"REELFLOW_CONFIG": "/nowhere/at-all.toml"}, "REELFLOW_CONFIG"),
    ],
)
def test_refusals_name_the_setting(environ: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(environ)
    assert caught.value.setting == named
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[workers]\n", "workers"),
        ("[worker]\nports = 1\n", "worker.ports"),
        ("worker = 1\n", "worker"),
        ("[worker\n", "REELFLOW_CONFIG"),
        ("[signals.live]\nskip = 1\n", "signals.live.skip"),
        ("[signals.live]\nwave = 1\n", "signals.live.wave"),
        ("[signals.radio]\nskip = -1\n", "signals.radio"),
        ("[signals.tv]\nenough_ms = 0\n", "signals.tv.enough_ms"),
        ("[signals.tv]\nlike = nan\n", "signals.tv.like"),
        ("[signals]\ntv = 1\n", "signals.tv"),
    ],
)
def test_refusals_in_a_file(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "reelflow.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_settings({}, file)
    assert caught.value.setting == named


def test_a_table_of_the_environment_names_only_what_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "reelflow.toml"
    file.write_text("[signals.audio]\nlike = 3\nshare = 4\n")
    audio = load_settings({"REELFLOW_SIGNALS_AUDIO": '{"share": 5}'}, file).signals.audio
    assert (audio.like, audio.share, audio.skip) == (3.0, 5.0, -0.75)


def test_lists_come_from_the_environment() -> None:
    settings = load_settings({"REELFLOW_LEARNER_POPULARITY_HALF_LIVES_H": "[1, 24]"})
    assert settings.learner.popularity_half_lives_h == (1.0, 24.0)


def test_reference_in_docs_is_what_the_code_says() -> None:
    docs = Path(__file__).parents[2] / "docs" / "settings.md"
    assert docs.read_text(encoding="utf-8") == reference()
