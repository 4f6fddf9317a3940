"""`reelflow evaluate` from end to end, its data sets and protocols."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from learners.prequential import past_of
from schemas.errors import ConfigurationError, SourceError
from schemas.settings import LearnerSettings
from streams.cli import cli
from streams.evaluation.data_sets import interleaved, load_stream, ordered_leave_one_out, stream_leave_one_out
from streams.evaluation.learners import PLAIN, learner_settings
from streams.evaluation.run import Asking, evaluate
from streams.evaluation.sessions import frozen_periods, read_periods


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hundred ratings in the layout of MovieLens, three at a time."""
    folder = tmp_path_factory.mktemp("ratings")
    random = np.random.default_rng(0)
    rows = {
        (int(u), int(i))
        for u, i in zip(random.integers(20, size=300), random.integers(30, size=300), strict=True)
    }
    lines = [f"{u}::{i}::5::{1_000 + n // 3}" for n, (u, i) in enumerate(sorted(rows, key=hash))]
    (folder / "ratings.dat").write_text("\n".join(lines) + "\n")
    (folder / "movies.dat").write_text("\n".join(f"{i}::Film {i}::Drama" for i in range(30)) + "\n")
    return folder


def test_the_report_and_the_plot(ratings: Path, tmp_path: Path) -> None:
    plot = tmp_path / "plot.html"
    arguments = ["evaluate", "--format", "movielens", "--input", str(ratings), "--seeds", "2"]
    arguments += ["--learner", "markov", "--learner", "popularity-1d", "--learner", "reelflow"]
    result = CliRunner().invoke(cli, [*arguments, "--json", "--plot", str(plot)])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["repeats"] is False
    assert report["ties"] == "item"
    assert set(report["learners"]) == {"markov", "popularity-1d", "reelflow"}
    ours = report["learners"]["reelflow"]
    for metric in ("recall_20", "recall_10", "ndcg_10", "mrr_20"):
        mean = ours["segments"]["last_fifth"][metric]
        assert mean["low"] <= mean["value"] <= mean["high"]
    assert ours["segments"]["all"]["recall_20"]["n"] == ours["windows"][-1]["to"]
    assert ours["lists"]["coverage"] > 0.5
    worst = report["differences"]["to"]["markov"]["worst_window"]
    assert 0 <= worst["from"] < worst["to"] <= ours["windows"][-1]["to"]
    assert worst["to"] - worst["from"] <= report["differences"]["window"]
    page = plot.read_text()
    assert page.count("<polyline") == 6
    assert "http" not in page

    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    assert "worst window" in result.stdout


def test_an_unknown_learner_is_named_before_anything_is_read() -> None:
    result = CliRunner().invoke(
        cli, ["evaluate", "--learner", "oracle", "--format", "native", "--input", "none"]
    )
    assert result.exit_code != 0
    assert "oracle" in str(result.exception)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("learner.attention_head=2", "learner.attention_head"),
        ("learner.attention_heads=many", "learner.attention_heads"),
        ("learner.attention_heads=9", "learner.attention_heads"),
        ("learner.popularity_half_lives_h=[1", "learner.popularity_half_lives_h"),
        ("attention_heads=2", "attention_heads=2"),
        ("learner.attention_heads", "learner.attention_heads"),
        ("learners.attention_heads=2", "learners.attention_heads"),
        ("worker.port=1", "worker.port"),
        ("learner.sync_interval_s=2", "learner.sync_interval_s"),
    ],
)
def test_a_wrong_assignment_is_named_before_anything_is_read(text: str, named: str) -> None:
    result = CliRunner().invoke(cli, ["evaluate", "--set", text, "--format", "native", "--input", "none"])
    assert result.exit_code != 0
    assert isinstance(result.exception, ConfigurationError)
    assert result.exception.setting == named


def test_every_learner_setting_can_be_set_but_those_of_roles() -> None:
    for key, value in msgspec.to_builtins(LearnerSettings()).items():
        text = f"learner.{key}=" + msgspec.json.encode(value).decode().strip('"')
        if key in {"seen", "sync_interval_s", "sync_bytes_per_s", "max_users"}:
            with pytest.raises(ConfigurationError, match="plays no part in an evaluation"):
                learner_settings([text])
        else:
            device = "auto" if key == "device" else PLAIN.device
            assert learner_settings([text]) == LearnerSettings(device=device)


def test_what_is_set_is_learned_with_and_reported(ratings: Path) -> None:
    def run(*settings: str) -> dict[str, Any]:
        arguments = ["evaluate", "--format", "movielens", "--input", str(ratings), "--learner", "reelflow"]
        for text in settings:
            arguments += ["--set", text]
        result = CliRunner().invoke(cli, [*arguments, "--json"])
        assert result.exit_code == 0, result.output
        report: dict[str, Any] = json.loads(result.stdout)
        return report

    def figures(report: dict[str, Any]) -> Any:
        return report["learners"]["reelflow"]["segments"]["all"]

    plain = run()
    assert plain["settings"] == {}
    for text, changed in {
        "learner.dim=8": {"dim": 8},
        "learner.attention_heads=2": {"attention_heads": 2},
        "learner.history=8": {"history": 8},
        "learner.embeddings=false": {"embeddings": False},
        "learner.seed=3": {"seed": 3},
    }.items():
        report = run(text)
        assert report["settings"] == changed
        assert figures(report) != figures(plain), text
    # The run number is added to the seed that is set.
    assert figures(run("learner.seed=2", "learner.seed=3")) == figures(run("learner.seed=3"))


def test_a_share_of_what_teaches_goes_with_what_is_only_learned() -> None:
    result = CliRunner().invoke(cli, ["evaluate", "--teach-every", "4", "--learner", "markov"])
    assert isinstance(result.exception, ConfigurationError)
    assert result.exception.setting == "teach-every"
    result = CliRunner().invoke(
        cli,
        ["evaluate", "--teach-every", "4", "--learner", "markov", "--protocol", "leave-one-out", "--json"],
    )
    assert json.loads(result.stdout)["teach_every"] == 4


def test_settings_stand_in_the_report(ratings: Path) -> None:
    arguments = ["evaluate", "--format", "movielens", "--input", str(ratings), "--learner", "reelflow"]
    result = CliRunner().invoke(cli, [*arguments, "--set", "learner.dim=8", "--protocol", "leave-one-out"])
    assert result.exit_code == 0, result.output
    assert "reelflow with learner.dim = 8\n" in result.stdout


def test_prior_events_are_learned_and_never_ranked(tmp_path: Path) -> None:
    def lines(name: str, n: int, first_ms: int) -> Path:
        file = tmp_path / name
        events = (
            {"event_id": f"{name}-{i}", "user_id": f"u{i % 3}", "item_id": f"v{i % 5}", "type": "watch"}
            | {"ts_ms": first_ms + i}
            for i in range(n)
        )
        file.write_text("".join(json.dumps(event) + "\n" for event in events))
        return file

    prior, events = lines("prior.jsonl", 30, 1_000), lines("events.jsonl", 20, 9_000)
    stream = load_stream("native", events, prior=prior)
    assert stream.target.tolist() == [False] * 30 + [True] * 20
    report = evaluate(Asking(format="native", path=events, prior=prior, learners=("markov",)))
    assert report["stream"]["asked"] == 20
    assert report["stream"]["targets_on_unseen_items"] == 0


def test_interleaving_keeps_the_order_of_each_user_and_is_repeatable() -> None:
    users = np.repeat(np.arange(100)[::-1], 7)
    items = np.arange(700)
    u, i = interleaved(users, items)
    for user in range(100):
        assert i[u == user].tolist() == items[users == user].tolist()
    assert len(np.unique(u[:40])) > 20
    np.testing.assert_array_equal(i, interleaved(users, items)[1])


def test_leave_one_out_ranks_every_last_target_once() -> None:
    stream, phases = stream_leave_one_out(load_stream("sample", None, limit=3_000))
    learned, ranked = phases
    assert (learned.last, ranked.last) == (ranked.first, len(stream))
    held = stream.users[ranked.first :]
    assert len(np.unique(held)) == len(held)
    # Slots are still given out in order, which is what `n_items` of a question relies on.
    first = np.unique(stream.items, return_index=True)[1]
    assert (np.diff(first) > 0).all()
    before = past_of(stream).n_events[ranked.first :]
    assert before.tolist() == [int((stream.users[: ranked.first] == user).sum()) for user in held]


def test_leave_one_out_of_ordered_users(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    user = np.repeat(np.arange(1, 51), 4).astype(np.int16)
    movie = np.arange(200).astype(np.int16)
    rank = np.tile(np.array([2, 0, 3, 1], dtype=np.int16), 50)
    table = pa.table({"user": user, "movie": movie, "rating": np.ones(200, np.int8), "chrono_rank": rank})
    pq.write_table(table, tmp_path / "ratings_no_timestamp.parquet")
    stream, (learned, ranked) = ordered_leave_one_out(tmp_path)
    assert (learned.last, len(stream)) == (150, 200)
    order = {slot: i for i, slot in enumerate(stream.items.tolist())}
    assert min(order[slot] for slot in stream.items[ranked.first :].tolist()) == 150


def test_frozen_periods_rank_known_items_from_the_second_click_and_learn_all(tmp_path: Path) -> None:
    (tmp_path / "period_0.txt").write_text("1 10\n1 11\n2 11\n")
    (tmp_path / "period_1.txt").write_text("3 11\n3 99\n3 10\n4 99\n4 10\n")
    stream, phases = frozen_periods(read_periods(tmp_path))
    assert [(phase.first, phase.last, phase.learned) for phase in phases] == [
        (0, 3, True),
        (3, 6, False),
        (6, 11, True),
    ]
    assert stream.items.tolist() == [0, 1, 1, 1, 0, 0, 1, 2, 0, 2, 0]
    assert not set(stream.users[3:6]) & set(stream.users[6:])
    report = evaluate(
        Asking(format="sessions", path=tmp_path, learners=("markov",), protocol="frozen-periods")
    )
    # 11 then 10 of session 3; session 4 has a single known click.
    assert report["stream"]["asked"] == 1


def test_a_click_on_the_same_item_again_is_learned_and_enters_the_session(tmp_path: Path) -> None:
    (tmp_path / "period_0.txt").write_text("1 10\n1 10\n1 11\n1 10\n")
    stream, _ = frozen_periods(read_periods(tmp_path))
    past = past_of(stream)
    assert past.fresh.all()
    assert past.n_positives.tolist() == [0, 1, 2, 3]


def test_a_broken_session_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "period_0.txt").write_text("1 10\n1\n")
    with pytest.raises(SourceError, match=r"period_0\.txt"):
        read_periods(tmp_path)
