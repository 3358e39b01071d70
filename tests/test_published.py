"""The committed results against their recipes, and the pages against the results."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from conftest import EARLIER, compose_run, group_options
from omegaconf import OmegaConf

from parsimony.config import CONF
from parsimony.published.pages import EXAMPLE, PAGE, pages, write
from parsimony.published.rows import RECIPE, Row, ablation_rows, changes, current_config, recipe, record_rows, rows
from parsimony.published.tables import full_table, keras_table, short_table
from parsimony.runs import Epoch, Result

EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment" / "reproduce").glob("*.yaml"))
COMMITTED = [(row, run) for row in (*rows(), *record_rows(), *ablation_rows()) for run in row.runs]


def made_up(seed: int = 0, final: float = 0.9944, best: float = 0.9950) -> Result:
    return Result(
        name="reproduce/mnist_narrow",
        overrides=[],
        seed=seed,
        status="completed",
        epochs=20,
        parameters={"total": 5904},
        macs=1_000_000,
        final=Epoch(20, test={"loss": 0.02, "accuracy": final}),
        best=Epoch(18, test={"loss": 0.02, "accuracy": best}),
        seconds={"fit": 400.0, "epoch": 20.0},
        history=[{"epoch": epoch, "elapsed": 24.0 * epoch} for epoch in range(1, 21)],  # with the scoring
        device="a CPU, 2 cores",
        precision="32-true",
        threads=1,
        data={"name": "mnist", "publisher": True},
        config={"data": {"batch_size": 128}},
    )


def row(*runs: Result, reported: float | None = 99.43) -> Row:
    return Row("mnist_narrow", list(runs), seeds=5, reported=reported)


def test_the_pages_are_those_of_the_results() -> None:
    for path, text in pages().items():
        assert path.read_text() == text, "run make results"


def test_a_card_goes_with_its_results(tmp_path: Path) -> None:
    (tmp_path / "mnist_gone.md").write_text("the card of removed results")
    write({tmp_path / "mnist_narrow.md": "a card"}, cards=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mnist_narrow.md"]


def test_every_recipe_has_its_row() -> None:
    assert sorted(row.network for row in rows()) == EXPERIMENTS


@pytest.mark.parametrize(("row", "run"), COMMITTED, ids=[f"{row.name}-{run.seed}" for row, run in COMMITTED])
def test_a_committed_result_is_one_of_its_recipe(row: Row, run: Result) -> None:
    assert changes(run, row) == []
    assert (run.name, run.status, run.dirty) == (EARLIER.get(row.name, row.name), "completed", False)
    assert run.epochs == run.final.epoch == run.config["trainer"]["max_epochs"] == len(run.history)
    assert run.data["publisher"] or "copy" in run.data["name"]


def test_the_sweep_that_the_docs_show_is_whole() -> None:
    runs = [Result.read(path) for path in sorted(EXAMPLE.glob("*/result.json"))]
    settings = {(run.config["model"]["dropout"], run.config["optimizer"]["lr"]) for run in runs}
    assert settings == set(product((0, 0.05, 0.1, 0.2), (0.001, 0.003, 0.01)))
    assert {(run.status, run.epochs, run.data["publisher"], run.dirty) for run in runs} == {
        ("completed", 3, True, False)
    }
    assert any(run.resumed for run in runs)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_recipe_trains_on_every_image_and_watches_the_test_set(experiment: str) -> None:
    now = recipe(current_config(f"reproduce/{experiment}"))
    assert now["data.validation"] == "test"
    assert now["data.train_images"] == (30_000 if experiment.startswith("mnist_wide") else None)
    assert now["model"]["_target_"].rpartition(".")[2] in group_options("model")


@pytest.mark.parametrize("experiment", [name for name in EXPERIMENTS if not name.endswith(("_plus", "_augmented"))])
def test_an_originals_recipe_is_in_float32(experiment: str, tmp_path: Path) -> None:
    assert compose_run(tmp_path, f"experiment=reproduce/{experiment}").engine.precision == "32-true"


@pytest.mark.parametrize("network", [recipe.network for recipe in rows() if recipe.network.endswith("_plus")])
def test_a_recipe_of_our_own_keeps_the_network_and_the_epochs(network: str) -> None:
    ours, theirs = (recipe(current_config(f"reproduce/{name}")) for name in (network, network.removesuffix("_plus")))
    assert ours["model"]["_target_"] == theirs["model"]["_target_"]
    assert ours["trainer.max_epochs"] == theirs["trainer.max_epochs"]


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("optimizer.lr=0.1", ["optimizer"]),
        ("model.dropout=0.2", ["model"]),
        ("scheduler=cosine", ["scheduler"]),
        ("data.batch_size=64", ["data.batch_size"]),
        ("data.validation=5000", ["data.validation"]),
        ("data.train_images=100", ["data.train_images"]),
        ("data.augment_epochs=15", ["data.augment_epochs"]),
        ("augment=digits", ["augment"]),
        ("trainer.max_epochs=5", ["trainer.max_epochs"]),
        ("trainer.gradient_clip_val=1", ["trainer.gradient_clip_val"]),
        ("+trainer.limit_train_batches=0.5", ["trainer.limit_train_batches"]),
        ("callbacks=[default,ema]", ["callbacks.ema.decay"]),
        ("label_smoothing=0.1", ["label_smoothing"]),
        ("data=fashion_mnist", ["data.source.name"]),
        ("engine=plain", []),
        ("seed=3", []),
        ("trainer.log_every_n_steps=7", []),
        ("logger=csv", []),
        ("data.root=elsewhere", []),
    ],
)
def test_what_makes_a_result_stale(override: str, changed: list[str], tmp_path: Path) -> None:
    config = OmegaConf.to_container(compose_run(tmp_path, "experiment=reproduce/mnist_narrow", override))
    assert changes(replace(made_up(), config=config), row()) == changed
    assert list(recipe(config)) == list(RECIPE)


@pytest.mark.parametrize(
    ("experiment", "precision", "changed"),
    [
        ("mnist_narrow", "32-true", []),
        ("mnist_narrow", "bf16-mixed", ["engine.precision"]),
        ("mnist_narrow_plus", "bf16-mixed", []),  # left to the hardware
    ],
)
def test_what_a_run_was_computed_in_can_make_it_stale(
    experiment: str, precision: str, changed: list[str], tmp_path: Path
) -> None:
    config = OmegaConf.to_container(
        compose_run(tmp_path, f"experiment=reproduce/{experiment}", "engine.precision=auto")
    )
    published = replace(row(), network=experiment)
    assert changes(replace(made_up(), config=config, precision=precision), published) == changed


@pytest.mark.parametrize(
    ("reported", "verdict"),
    [(99.42, "beaten by 0.02, within noise (± 0.04)"), (99.44, "met"), (99.49, "below by 0.05"), (None, "")],
)
def test_a_verdict_compares_what_is_printed(reported: float | None, verdict: str) -> None:
    published = row(made_up(0, 0.9943), made_up(1, 0.9944), made_up(2, 0.99446), reported=reported)
    assert published.verdict == verdict  # sd 0.008: one more run may differ by 4.30 * 0.008 * sqrt(4 / 3) = 0.04
    assert "noise" not in replace(published, group="record").verdict


def test_a_verdict_says_where_the_data_are_not_those_of_the_original() -> None:
    copy = replace(made_up(), data={"name": "mnist (a copy)", "publisher": False})
    assert row(copy, reported=99.20).verdict == "beaten by 0.24, on a copy"
    assert row(copy, reported=99.25).verdict == "beaten by 0.19, within noise (± 0.21), on a copy"


def test_one_run_tells_less_than_several() -> None:
    assert row(made_up(), reported=99.25).verdict == "beaten by 0.19, within noise (± 0.21)"  # binomial
    assert row(made_up(), reported=99.20).verdict == "beaten by 0.24"


def test_tables_tell_means_from_single_runs() -> None:
    single, several = row(made_up()), row(made_up(), made_up(1, 0.9940, 0.9952))
    assert "99.44 % (n=1)" in short_table([single])
    assert "| 5,904 | 20 | 8 | 99.43 % | 99.42 ± 0.03 % (n=2) | below by 0.01, within noise (± 0.44) |" in short_table(
        [several]
    )
    line = full_table([several]).splitlines()[-1]
    assert "| 99.44 99.40 | 99.51 ± 0.01 % (n=2) | 20 | a CPU, 2 cores, 1 thread, 32-true |" in line
    faster = replace(made_up(1), device="b CPU, 4 cores", seconds={"fit": 100.0, "epoch": 5.0})
    line = full_table([row(made_up(), faster, made_up(2))]).splitlines()[-1]
    assert line.endswith("| 20 and 5 | a CPU, 2 cores, 1 thread, 32-true and b CPU, 4 cores, 1 thread, 32-true |")
    assert "not run yet" in short_table([row()])
    assert "not run yet" in full_table([row()])


def test_keras_is_compared_at_the_same_epoch(tmp_path: Path) -> None:
    folder = tmp_path / "keras" / "mnist_narrow"
    folder.mkdir(parents=True)
    for seed, accuracies in enumerate(([0.97, 0.98, 0.99], [0.96, 0.97])):
        (folder / f"seed-{seed}.json").write_text(json.dumps({"test_accuracy": accuracies}))
    ours = replace(made_up(), history=[{"watched_test/accuracy": accuracy} for accuracy in (0.95, 0.985, 0.99)])
    assert keras_table([row(ours)], tmp_path).splitlines()[2:] == [
        "| `mnist_narrow` | 2 | 97.50 ± 0.71 % (n=2) | 98.50 % (n=1) | 98.00 97.00 |",
        "| `mnist_narrow` | 3 | 99.00 % (n=1) | 99.00 % (n=1) | 99.00 |",
    ]
    assert keras_table([row()], tmp_path) == "Not run yet."


def test_the_page_has_every_command() -> None:
    page = PAGE.read_text()
    for experiment in EXPERIMENTS:
        assert f"`python train.py experiment=reproduce/{experiment} seed=0`" in page
