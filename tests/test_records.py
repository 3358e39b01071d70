"""The records: their recipes keep their budgets, and the tables say what the runs say."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import EARLIER, compose_run
from matplotlib import rc_context
from test_published import made_up

from parsimony.config import CONF
from parsimony.published.curves import curves
from parsimony.published.pareto import pareto, public
from parsimony.published.rows import Row, ablation_rows, recipe, record_rows, records
from parsimony.published.tables import ablation_table, record_table, smallest, surpassed, teachers, time_table
from parsimony.report.plots import STYLE
from parsimony.reproduce import asked_for
from parsimony.summary import summarize
from parsimony.targets import build

RECORDS = record_rows()


def row(*accuracies: float, change: str = "", overrides: tuple[str, ...] = ()) -> Row:
    runs = [made_up(seed, accuracy / 100) for seed, accuracy in enumerate(accuracies)]
    runs = [replace(run, parameters={"total": 2472, "trainable": 2388}) for run in runs]
    aim = None if change else 99.40
    return Row("mnist_tiny", runs, 5, aim, "2,500 parameters", group="record", change=change, overrides=overrides)


def test_the_smallest_network_is_the_one_whose_mean_reaches() -> None:
    def sized(parameters: int, *accuracies: float) -> Row:
        made = row(*accuracies)
        runs = [replace(run, parameters={"total": parameters}) for run in made.runs]
        return replace(made, network=f"mnist_{parameters}", runs=runs)

    rows = [sized(900, *[99.39] * 5), sized(800, *[99.50] * 4), sized(1000, *[99.40] * 5), sized(2000, *[99.6] * 5)]
    assert "is that of `mnist_1000`: 1,000 parameters, 99.40 ± 0.00 % (n=5)." in smallest(rows, at_least=99.40)
    assert smallest(rows, at_least=99.70) == "No network here has a mean of 99.70 % over 5 seeds."


def test_a_record_is_told_of_what_surpasses_it() -> None:
    def limited(network: str, parameters: int, *accuracies: float) -> Row:
        made = row(*accuracies)
        config = {"budget": {"parameters": 3000, "epochs": 20}}
        runs = [replace(run, parameters={"total": parameters}, config=config) for run in made.runs]
        return replace(made, network=network, runs=runs)

    record = limited("ours", 2472, *[99.40] * 5)
    others = [limited("few", 2000, 99.9), limited("large", 3001, *[99.9] * 5), limited("same", 2000, *[99.40] * 5)]
    assert surpassed([record, replace(record, runs=[])], [record, *others]) == ""
    better = limited("better", 3000, *[99.41] * 5)
    said = "Within the limits of `ours`, `record/better` has 99.41 ± 0.00 % (n=5)."
    assert surpassed([record], [*others, better]) == said


def test_every_recipe_has_its_record() -> None:
    assert sorted(records()) == sorted(path.stem for path in (CONF / "experiment" / "record").glob("*.yaml"))


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.network)
def test_a_record_keeps_its_budget_and_never_watches_the_test_set(record: Row, tmp_path) -> None:
    cfg = compose_run(tmp_path, f"experiment={record.experiment}")
    shape = (3, 32, 32) if record.network.startswith("cifar") else (1, 28, 28)
    assert summarize(build(cfg.model), shape).total <= cfg.budget.parameters
    assert cfg.trainer.max_epochs <= cfg.budget.epochs
    assert cfg.data.validation != "test"
    assert f"{cfg.budget.parameters:,} parameters" in record.source
    assert f"{cfg.budget.epochs} epochs" in record.source


@pytest.mark.parametrize("ablation", ablation_rows(), ids=lambda ablation: ablation.name)
def test_an_ablation_changes_the_recipe(ablation: Row, tmp_path: Path) -> None:
    whole, changed = (
        compose_run(tmp_path, f"experiment={ablation.experiment}", *overrides) for overrides in ((), ablation.overrides)
    )
    assert (whole.engine.precision, recipe(whole)) != (changed.engine.precision, recipe(changed))


@pytest.mark.parametrize(
    "ablation", [row for row in ablation_rows() if row.name not in EARLIER], ids=lambda ablation: ablation.name
)
def test_an_ablations_runs_have_its_change(ablation: Row) -> None:
    assert all({*ablation.overrides} <= {*run.overrides} for run in ablation.runs)


def test_the_tables_of_made_up_runs() -> None:
    record, ablation = row(99.40, 99.50, 99.45), row(99.30, 99.42, change="no_ema", overrides=("callbacks=[default]",))
    line = record_table([record]).splitlines()[-1]
    assert (
        "| 99.40 % | 2,472 (2,388) | 1,000,000 | 20 | 99.45 ± 0.05 % (n=3) | exceeded by 0.05 | 99.40 99.50 99.45 |"
        in line
    )
    assert "not run yet" in record_table([row()])
    # The difference is of seeds 0 and 1, which both have.
    lines = ablation_table([record], [ablation, row(change="muon")]).splitlines()
    assert (
        lines[-1] == "| | no ema | `callbacks=[default]` | 2,472 | 99.36 ± 0.08 % (n=2) | -0.09 ± 0.13 |"
    )  # of seeds 0 and 1
    assert ablation_table([row()], []) == "Not run yet."


def test_a_teacher_is_told_once() -> None:
    teacher = {"name": "teacher/mnist", "seed": 0, "parameters": 117210, "test_accuracy": 0.9971}
    config = {"distillation": {"weight": 0.5, "temperature": 2.0}}
    ablation = row(99.30, 99.42, change="taught")
    taught = replace(ablation, runs=[replace(run, teacher=teacher, config=config) for run in ablation.runs])
    told = "teacher/mnist, seed 0 (117,210 parameters, 99.71 %), weight 0.5, temperature 2.0"
    assert teachers([ablation, taught]) == f"The teacher of `mnist_tiny` is {told}."


def test_the_picture_has_all_of_one_task() -> None:
    tiny, ablation = row(99.40), row(99.30, change="no_ema")
    narrower = row(98.50, change="3_wide")
    narrower = replace(narrower, runs=[replace(run, parameters={"total": 800}) for run in narrower.runs])
    with rc_context(STYLE):
        figure = pareto("mnist", [tiny, ablation, narrower, replace(tiny, network="cifar_tiny")])
    (axes,) = figure.axes
    drawn = {line.get_label().split(",")[0]: len(line.get_xdata()) for line in axes.lines}
    others = sum(entry["task"] == "mnist" for entry in public())
    assert drawn == {"ours": 2, "their Pareto front": 2, "public": others}
    assert {text.get_text() for text in axes.texts} == {"mnist_tiny", "mnist_tiny, 3 wide"}


def test_what_is_asked_for_by_name() -> None:
    ablation = row(change="no_ema")
    for name in ("mnist_tiny", "record", "record/mnist_tiny"):
        assert asked_for(row(), name)
        assert not asked_for(ablation, name)
    for name in ("ablation", "ablation/mnist_tiny", "ablation/mnist_tiny/no_ema"):
        assert asked_for(ablation, name)
        assert not asked_for(row(), name)


def test_the_table_of_times(tmp_path: Path) -> None:
    path = tmp_path / "record_time.json"
    assert time_table(path) == "Not measured yet."
    runs = [{"seed": seed, "seconds": seconds, "accuracy": 0.994} for seed, seconds in enumerate((70.4, 90.0, 71.2))]
    path.write_text(json.dumps({"record": "mnist_5_epochs", "machine": "a CPU", "date": "2026-01-02", "runs": runs}))
    assert time_table(path).splitlines()[-1] == "| `mnist_5_epochs` | 71 s | 90 s | 70 90 71 | 99.40 ± 0.00 % (n=3) |"


def test_a_record_is_surpassed_on_its_own_data_alone() -> None:
    def on(name: str, accuracy: float) -> Row:
        made, config = row(*[accuracy] * 5), {"budget": {"parameters": 3000, "epochs": 20}}
        runs = [replace(run, data={"name": name, "publisher": True}, config=config) for run in made.runs]
        return replace(made, network=name, runs=runs)

    assert surpassed([on("cifar10", 90.0)], [on("cifar10", 90.0), on("mnist", 99.9)]) == ""


def test_the_picture_draws_means_over_seeds() -> None:
    with rc_context(STYLE):
        (axes,) = pareto("mnist", [row(99.40, 99.50, 99.30)]).axes
    (ours,) = [line for line in axes.lines if line.get_label().startswith("ours")]
    assert list(ours.get_ydata()) == pytest.approx([0.0060])


def test_the_curves_are_the_training_sets_and_the_point_the_test_sets() -> None:
    made = row(99.40, 99.50)
    histories = [
        [{"train/accuracy": 0.90}, {"train/accuracy": 0.98}],
        [{"train/accuracy": 0.94}, {"train/accuracy": 0.99}],
    ]
    runs = [replace(run, history=history) for run, history in zip(made.runs, histories, strict=True)]
    with rc_context(STYLE):
        (axes,) = curves([replace(made, runs=runs), row()]).axes  # none for a record without runs
    drawn = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}
    assert drawn["training set"] == ([1, 2], pytest.approx([0.08, 0.015]))
    assert drawn["aim"][1] == pytest.approx([0.006, 0.006])
    (bars,) = axes.containers
    assert bars.lines[0].get_xydata()[0] == pytest.approx([2, 0.0055])
    assert bars.lines[2][0].get_segments()[0].flatten() == pytest.approx([2, 0.005, 2, 0.006])
