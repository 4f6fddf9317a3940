"""`reelflow evaluate-content`: how well new items are found by what they are."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from ..evaluation.cold import COLD_SETS, evaluate_cold
from ..evaluation.cold_text import cold_text
from ..evaluation.learners import learner_settings
from ..evaluation.run import Progress
from .evaluate import progress
from .options import json_option, limit_option, set_option


@click.command
@click.option(
    "--input",
    "path",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    envvar="REELFLOW_DATA",
    help="Folder with the data sets' folders; REELFLOW_DATA by default.",
)
@click.option(
    "--data-set",
    "names",
    type=click.Choice(COLD_SETS),
    multiple=True,
    help="May be repeated; all by default.",
)
@click.option("--titles/--no-titles", default=True, help="Whether titles are read (needs the extra content).")
@click.option("--ablation", is_flag=True, help="Also reelflow that knows only how many events items had.")
@limit_option
@set_option
@json_option
def command(
    path: Path,
    names: tuple[str, ...],
    titles: bool,
    ablation: bool,
    limit: int | None,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Rank, score, then learn recorded streams, once; report by how many events a target's item had so far.

    reelflow with content beside itself without, popularity, popularity of new items, and nearest by
    content. docs/content.md says when an item is in the catalogue.
    """
    encode = None
    if titles:
        from ..content.text_encoder import SentenceEncoder

        encode = SentenceEncoder().encode
    reports = []
    for name in names or COLD_SETS:
        with progress() as show:

            def told(done: int, total: int, what: str = name, show: Progress | None = show) -> None:
                if show is not None:
                    show(what, done, total)

            reports.append(
                evaluate_cold(
                    name,
                    path,
                    encode,
                    learner=learner_settings(settings),
                    ablation=ablation,
                    limit=limit,
                    on_progress=told,
                )
            )
        if not as_json:
            click.echo(cold_text(reports[-1]) + "\n")
    if as_json:
        click.echo(msgspec.json.encode(reports))
