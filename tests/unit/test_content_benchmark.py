"""Parts of benchmarks/content: folds, groups, what is read of a stamp, and the order of columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.content.stamps import read_stamps
from benchmarks.content.tagging import N_FOLDS, Labelled, folds_of, grouped, tagged
from learners.tagger import TaggerOptions


def test_versions_of_one_thing_are_one_group() -> None:
    titles = ["A cat.", "The cat", "Dog", "Tabby", "It", "Is"]
    stems = ["cat_1", "tom", "dog", "tom-2", "a1", "a2"]
    assert grouped(titles, stems).tolist() == [0, 0, 2, 0, 4, 5]


def test_folds_keep_groups_whole_and_are_of_one_size() -> None:
    groups = np.repeat(np.arange(60), 1 + np.arange(60) % 4)
    for seed in range(3):
        fold = folds_of(groups, seed)
        assert all(len(set(fold[groups == group].tolist())) == 1 for group in range(60))
        sizes = np.bincount(fold, minlength=N_FOLDS)
        assert sizes.max() - sizes.min() <= 4
    assert (folds_of(groups, 0) != folds_of(groups, 1)).any()


def test_a_stamp_is_its_folder_its_titles_and_the_files_beside(tmp_path: Path) -> None:
    (tmp_path / "animals" / "birds").mkdir(parents=True)
    (tmp_path / "symbols").mkdir()
    (tmp_path / "symbols" / "a.txt").write_text("A.\n")
    (tmp_path / "animals" / "birds" / "owl.txt").write_text("An owl.\nde.utf8=Eule\nzh_CN.utf8=猫头鹰。\n")
    (tmp_path / "animals" / "birds" / "owl.wav").touch()
    (owl,) = read_stamps(tmp_path)
    assert (owl.name, owl.tag, owl.title, owl.title_zh) == (
        "animals/birds/owl",
        "animals",
        "An owl.",
        "猫头鹰。",
    )
    assert owl.picture is None
    assert owl.sound == tmp_path / "animals" / "birds" / "owl.wav"


def test_columns_that_tags_take_in_a_fold_do_not_matter() -> None:
    random = np.random.default_rng(3)
    tags = [f"t{k}" for k in random.integers(4, size=200)]
    means = random.normal(size=(4, 12))
    text = np.stack([means[int(tag[1:])] for tag in tags]) + 0.3 * random.normal(size=(200, 12))
    data = Labelled({"text": text.astype(np.float32)}, tags, {}, np.arange(200))
    figures = tagged(data, ["text"], 0, TaggerOptions(), by_text=False)
    assert figures.n_items == 200
    assert figures.top_accuracy > 0.95
    assert figures.mean_precision > 0.95
