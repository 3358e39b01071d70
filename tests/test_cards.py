"""Model cards of runs and of published results."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import compose_run
from example_run import EXAMPLE, typed
from omegaconf import OmegaConf

from parsimony.errors import InputError
from parsimony.published.cards import card
from parsimony.published.pages import CARDS, pages
from parsimony.published.rows import RESULTS, Row, rows
from parsimony.runs import Result
from parsimony.use.card import row_of

PUBLISHED = [row for row in rows() if row.runs]
RUN = Result.read(EXAMPLE / "result.json")


@pytest.fixture
def parsimony(monkeypatch: pytest.MonkeyPatch):
    return lambda *words: typed(monkeypatch, "card", *words)


def test_each_published_network_with_results_has_a_card_and_no_other() -> None:
    """That its text is the one of the results the test of all pages tells."""
    assert {path.stem for path in CARDS.glob("*.md")} == {row.network for row in PUBLISHED}
    assert {path for path in pages() if path.parent == CARDS} == set(CARDS.glob("*.md"))


@pytest.mark.parametrize("row", PUBLISHED, ids=[row.network for row in PUBLISHED])
def test_the_command_gives_the_committed_card(row: Row, parsimony, capsys) -> None:
    assert parsimony(RESULTS / "reproduce" / row.network) == 0
    text = capsys.readouterr().out
    assert text == (CARDS / f"{row.network}.md").read_text()
    for run in row.runs:
        assert f"| {run.seed} | {100 * run.final.test['accuracy']:.2f} % | {run.final.test['loss']:.4f} | " in text
    assert f"n={len(row.runs)}" in text
    reported = "The original reported" if row.reported is None else f"The original reported {row.reported:.2f} %"
    assert (reported in text) == (row.reported is not None)
    assert f"`python train.py experiment=reproduce/{row.network} seed=0`" in text


def test_the_card_of_a_run_of_ones_own(parsimony, capsys, tmp_path: Path) -> None:
    assert parsimony(EXAMPLE, "--out", tmp_path / "card.md") == 0
    assert parsimony(EXAMPLE / "result.json") == 0
    text = capsys.readouterr().out
    assert text == (tmp_path / "card.md").read_text()
    for heading in ("Task", "Data", "Network", "Recipe", "Figures", "Known limits"):
        assert f"\n## {heading}\n" in text
    assert "original" not in text
    assert "`python train.py data=digits model=mnist_narrow engine.threads=1`" in text
    assert "one of 10 classes a grey picture of 28 x 28 pixels" in text
    assert f"{100 * RUN.final.test['accuracy']:.2f} % (n=1)" in text
    assert "its publisher's files, byte for byte" in text
    assert "n=1: nothing is known of the spread over seeds." in text


def test_what_a_reader_must_know_is_among_the_limits() -> None:
    data = {**RUN.data, "name": "cifar10 (jpeg-75 copy)", "publisher": False}
    config = {**RUN.config, "data": {**RUN.config["data"], "validation": "test"}}
    text = card(Row("net", [replace(RUN, data=data, config=config, dirty=True)], seeds=1))
    limits = text.partition("## Known limits")[2]
    assert "cifar10 (jpeg-75 copy) is not the publisher's data" in limits
    assert "The test set was scored each epoch." in limits
    assert "files changed" in text
    assert "early stopping" not in text
    stopped = {**config, "callbacks": {"early_stopping": {"_target_": "x.EarlyStopping", "patience": 5}}}
    assert "| early stopping | EarlyStopping (patience 5) |" in card(
        Row("net", [replace(RUN, config=stopped)], seeds=1)
    )
    assert "the publisher's data" not in card(Row("net", [RUN], seeds=1)).partition("## Known limits")[2]


def test_a_run_of_another_recipe_is_not_measured_by_the_originals_figure(tmp_path: Path) -> None:
    config = OmegaConf.to_container(compose_run(tmp_path, "experiment=reproduce/mnist_narrow"))
    run = replace(RUN, name="reproduce/mnist_narrow", config=config)
    run.write(tmp_path)
    assert row_of(tmp_path).reported == 99.43
    config["optimizer"]["lr"] = 1.0
    run.write(tmp_path)
    assert row_of(tmp_path).reported is None


def test_what_has_no_card(parsimony, tmp_path: Path) -> None:
    assert str(parsimony(tmp_path)).startswith(f"error: There is no result in {tmp_path}: expected")
    assert parsimony(EXAMPLE, "--out", tmp_path) == f"error: {tmp_path} is a folder: name a file."
    for content in ("{", "[" * 100_000, json.dumps({"final": None, "best": None, "other": 1})):
        (tmp_path / "result.json").write_text(content)
        assert "is damaged or no result of a run" in str(parsimony(tmp_path))
    for lacking in ({"versions": {}}, {"config": {}}, {"data": {}}, {"macs": None}):
        replace(RUN, **lacking).write(tmp_path)
        assert "is damaged or no result of a run" in str(parsimony(tmp_path))
    replace(RUN, status="interrupted").write(tmp_path)
    said = "error: A card is of completed runs, and mnist_narrow, seed 0, is not: interrupted."
    assert parsimony(tmp_path) == said
    with pytest.raises(InputError, match="several recipes"):
        card(Row("net", [RUN, replace(RUN, config={**RUN.config, "label_smoothing": 0.1})], seeds=2))
    with pytest.raises(InputError, match="several data files"):
        card(Row("net", [RUN, replace(RUN, data={**RUN.data, "sha256": {"a.npz": "12"}})], seeds=2))
    shutil.rmtree(tmp_path)
    assert "There is no result in" in str(parsimony(tmp_path))
