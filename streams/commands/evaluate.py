"""`reelflow evaluate`: how well learners rank what came next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import click
import msgspec

from ..evaluation.data_sets import FORMATS, Ties
from ..evaluation.impressions import TARGETS, Target, evaluate_impressions
from ..evaluation.impressions_text import impressions_text, reliability_html
from ..evaluation.learners import DEFAULT, KNOWN, learner_settings
from ..evaluation.plot import plot_html
from ..evaluation.run import PROTOCOLS, Asking, Progress, ProtocolName, evaluate
from ..evaluation.text import frozen_text, prequential_text
from .options import json_option, limit_option, set_option


@click.command
@click.option("--format", "format_", type=click.Choice(list(FORMATS)), default="sample", show_default=True)
@click.option("--input", "path", type=click.Path(path_type=Path), help="Folder of the data set, or its file.")
@click.option("--learner", "learners", multiple=True, help=f"Of {KNOWN}; may be repeated.")
@click.option(
    "--prior",
    type=click.Path(path_type=Path),
    help="Events before the stream, learned and never ranked: JSON lines; kuairand: its watch lists' file.",
)
@click.option("--protocol", type=click.Choice(PROTOCOLS), default="prequential", show_default=True)
@click.option(
    "--target",
    "targets",
    type=click.Choice(TARGETS),
    multiple=True,
    help="Outcome to evaluate with --protocol impressions; may be repeated, all by default.",
)
@click.option("--repeats/--no-repeats", default=None, help="Whether seen items are ranked; by format.")
@click.option(
    "--ties",
    type=click.Choice(get_args(Ties)),
    help="A user's events at one time: in file order, by item id, or predicted together; by format.",
)
@limit_option
@click.option(
    "--score-from",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    help="Rank from this share of the targets on; all before are only learned.",
)
@click.option(
    "--teach-every",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Not prequential: reelflow's gate learns from every so many-th event of what is only learned.",
)
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True, help="Runs averaged.")
@click.option(
    "--plot", type=click.Path(dir_okay=False, path_type=Path), help="HTML file of recall over time."
)
@set_option
@json_option
def command(
    format_: str,
    path: Path | None,
    learners: tuple[str, ...],
    prior: Path | None,
    protocol: ProtocolName,
    targets: tuple[Target, ...],
    repeats: bool | None,
    ties: Ties | None,
    limit: int | None,
    score_from: float,
    teach_every: int,
    seeds: int,
    plot: Path | None,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Rank, score, then learn a recorded stream, once; report how well each learner ranked.

    Every target is ranked among all items met so far, ties against the learner. Means come with
    95 % intervals by user; differences are paired.

    With --protocol impressions the probabilities of click and long view are evaluated instead, over a
    KuaiRand folder; --plot then shows their reliability, and training progress goes to standard error.
    """
    if protocol == "impressions":
        if format_ != "kuairand" or path is None:
            raise click.UsageError("--protocol impressions needs --format kuairand and its --input")
        if learners or seeds > 1 or ties not in {None, "together"} or repeats is not None or score_from:
            raise click.UsageError(
                "--protocol impressions knows --prior, --target, --limit, --plot and --json"
            )
        _impressions(path, prior, targets or TARGETS, limit, plot, as_json)
        return
    if targets:
        raise click.UsageError("--target goes with --protocol impressions")
    if plot is not None and protocol != "prequential":
        raise click.UsageError("--plot shows a prequential run")
    asking = Asking(
        format=format_,
        path=path,
        learners=tuple(dict.fromkeys(learners)) or DEFAULT,
        protocol=protocol,
        repeats=repeats,
        ties=ties,
        prior=prior,
        limit=limit,
        score_from=score_from,
        teach_every=teach_every,
        n_seeds=seeds,
        learner=learner_settings(settings),
    )
    with progress() as show:
        report = evaluate(asking, show)
    text = prequential_text(report) if protocol == "prequential" else frozen_text(report)
    if plot is not None:
        plot.write_text(plot_html(report, text), encoding="utf-8")
    click.echo(msgspec.json.encode(report) if as_json else text)


def _impressions(
    path: Path,
    prior: Path | None,
    targets: tuple[Target, ...],
    limit: int | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # batches are small, and the figures are of one core
    try:
        report = evaluate_impressions(
            path, prior=prior, targets=targets, limit=limit, say=lambda line: click.echo(line, err=True)
        )
    finally:
        torch.set_num_threads(threads)
    text = impressions_text(report)
    if plot is not None:
        plot.write_text(reliability_html(report, text), encoding="utf-8")
    click.echo(msgspec.json.encode(report) if as_json else text)


@contextmanager
def progress() -> Iterator[Progress | None]:
    """Progress bar on standard error if that is a terminal, nothing otherwise."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("reading")

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield show
