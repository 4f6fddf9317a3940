"""`reelflow evaluate --protocol impressions` from end to end, on a folder in KuaiRand's layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from learners.impressions import LONG
from schemas.errors import SourceError
from streams.cli import cli
from streams.evaluation.impression_data import load_impressions

N_USERS, N_VIDEOS, N = 60, 40, 6_000
START_MS = 1_650_816_000_000
VIDEO_COLUMNS = (
    "video_id", "author_id", "video_type", "upload_dt", "upload_type", "video_duration", "server_width",
    "server_height", "music_id", "tag",
)  # fmt: skip
USER_COLUMNS = (
    "user_id", "user_active_degree", "is_lowactive_period", "is_live_streamer", "is_video_author",
    "follow_user_num", "fans_user_num", "friend_user_num", "register_days", "onehot_feat1", "onehot_feat3",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Users that watch even videos for long; a third of the users with watch lists."""
    folder = tmp_path_factory.mktemp("kuairand")
    random = np.random.default_rng(0)
    user, video = random.integers(0, N_USERS, N), random.integers(0, N_VIDEOS, N)
    click = random.random(N) < np.where(video % 2 == 0, 0.8, 0.3)
    long = click & (random.random(N) < 0.7)
    columns = {
        "user_id": user,
        "video_id": video,
        "time_ms": START_MS + np.sort(random.integers(0, 86_400_000, N)),
        "is_click": click,
        "long_view": long,
        "play_time_ms": np.where(long, 12_000, 1_000),
        "duration_ms": np.full(N, 10_000),
        "tab": random.integers(0, 3, N),
    }
    for name in ("is_like", "is_follow", "is_comment", "is_forward", "is_hate"):
        columns[name] = np.zeros(N)
    table = pa.table({name: np.asarray(column).astype(np.int64) for name, column in columns.items()})
    pq.write_table(table, folder / "log_standard_test.parquet")
    videos = [",".join(VIDEO_COLUMNS)]
    videos += [f'{v},{v % 9},NORMAL,2022-04-0{v % 9 + 1},Import,{1e4 + v},720,1280,{v % 5},"{v % 4},7"'
               for v in range(N_VIDEOS)]  # fmt: skip
    (folder / "video_features_basic_test.csv").write_text("\n".join(videos) + "\n")
    users = [",".join(USER_COLUMNS)]
    users += [f"{u},full_active,0,0,1,{u},3,2,{100 + u},{u % 3},{u % 20}" for u in range(N_USERS)]
    (folder / "user_features_test.csv").write_text("\n".join(users) + "\n")
    lists = {
        "user_id": list(range(20)),
        "last_time_ms": [START_MS - 1_000] * 20,
        "watch_seq": [[(u + i) % N_VIDEOS for i in range(12)] for u in range(20)],
        # One long watch is older than the list of watches.
        "long_watch_seq": [[39, *((u + i) % N_VIDEOS for i in range(0, 12, 2))] for u in range(20)],
        "like_seq": [[]] * 20,
    }
    pq.write_table(pa.table(lists), folder / "user_history_test.parquet")
    return folder


def _arguments(folder: Path, *more: str) -> list[str]:
    prior = str(folder / "user_history_test.parquet")
    start = ["evaluate", "--format", "kuairand", "--input", str(folder), "--protocol", "impressions"]
    return [*start, "--prior", prior, *more]


def test_the_report_the_progress_and_the_plot(folder: Path, tmp_path: Path) -> None:
    plot = tmp_path / "plot.html"
    result = CliRunner().invoke(cli, _arguments(folder, "--json", "--plot", str(plot)))
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["stream"] == {"name": "kuairand", "impressions": N, "prior": 240, "scored": 4_200}
    ours = report["targets"]["is_click"]["reelflow"]
    assert ours["auc"] > 0.7
    assert ours["user_auc"] > 0.7
    assert ours["logloss"] < 0.62
    assert sum(b["n"] for b in ours["bins"]) == 4_200
    assert ours["without_repeats"]["n"] < 4_200
    assert 0 < ours["us_per_event"] < 10_000
    assert "loss" in result.stderr
    assert "AUC" in result.stderr
    page = plot.read_text()
    assert page.count("<circle") == sum(len(m["reelflow"]["bins"]) for m in report["targets"].values())
    assert "http" not in page


def test_one_target_as_text(folder: Path) -> None:
    result = CliRunner().invoke(cli, _arguments(folder, "--target", "long_view", "--limit", "900"))
    assert result.exit_code == 0, result.output
    assert "long_view, without repeats" in result.stdout
    assert "is_click:" not in result.stdout


def test_prior_watches_know_their_long_ones_and_nothing_else(folder: Path) -> None:
    data = load_impressions(folder, folder / "user_history_test.parquet")
    assert data.prior is not None
    assert (np.diff(data.prior.ts_ms) >= 0).all()
    assert data.prior.ts_ms.max() == START_MS - 1_000
    assert (data.prior.outcomes[:, [0, 2, 3]] == -1).all()
    even = (data.prior.items - data.prior.users) % N_VIDEOS % 2 == 0
    np.testing.assert_array_equal(data.prior.outcomes[:, LONG] == 1, even)
    assert data.impressions.categories.min() >= 0


@pytest.mark.parametrize(
    "more",
    [["--format", "movielens"], ["--learner", "markov"], ["--repeats"], ["--seeds", "2"]],
)
def test_options_of_other_protocols_are_refused(folder: Path, more: list[str]) -> None:
    result = CliRunner().invoke(cli, _arguments(folder, *more))
    assert result.exit_code == 2
    assert "impressions" in result.output


def test_a_target_needs_the_protocol() -> None:
    result = CliRunner().invoke(cli, ["evaluate", "--target", "is_click"])
    assert result.exit_code == 2


def test_a_missing_prior_is_named(folder: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.parquet"):
        load_impressions(folder, folder / "none.parquet")
