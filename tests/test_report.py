"""From runs to settings, verdicts, tables, pictures, the page and the command."""

import csv
import io
import json
import os
import re
import subprocess
import sys
import warnings
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from report_runs import our_run, our_scalars, write_events

from parsimony.noise import student
from parsimony.report import plots, table
from parsimony.report.command import main
from parsimony.report.page import commands, page
from parsimony.report.read import read_runs
from parsimony.report.run import Run
from parsimony.report.settings import Setting, group, short, verdicts

PATIENCE = 3.0  # seconds of processor time on a busy machine for what takes one on an idle one
NOISY = [0.9930, 0.9932, 0.9934]  # sd 0.0002
HOSTILE = "<script>alert(1)</script>"


def run(
    accuracy: float | None = 0.99, *, seed: int | None = 0, typed: bool = True, ended: bool = True, **given: Any
) -> Run:
    """`given` are hyperparameters, with a double underscore for a dot, or fields of Run."""
    hyperparameters = {key.replace("__", "."): given.pop(key) for key in list(given) if "__" in key}
    return Run(
        name=given.pop("name", "mnist_narrow"),
        path=given.pop("path", f"{hyperparameters} seed {seed}"),
        status="completed",
        ended=ended,
        seed=seed,
        hyperparameters={"model._target_": "mnist_narrow", "trainer.max_epochs": 3, **hyperparameters},
        overrides=[f"{key}={value}" for key, value in hyperparameters.items()] if typed else [],
        final={} if accuracy is None else {"validation/accuracy": accuracy},
        **{
            "parameters": 5904,
            "epochs": 3,
            "data": "mnist",
            "evaluated_on": "5,000 images of the training set",
            **given,
        },
    )


def seeds(accuracies: list[float], **given: Any) -> list[Run]:
    return [run(accuracy, seed=seed, **given) for seed, accuracy in enumerate(accuracies)]


def grouped(*runs: Run) -> list[Setting]:
    problems: list[str] = []
    settings = group(runs, problems)
    assert problems == []
    return settings


def test_seeds_of_a_setting_are_one_line_sorted_by_accuracy() -> None:
    settings = grouped(*seeds([0.98, 0.982], model__dropout=0.1), *seeds(NOISY, model__dropout=0.0))
    assert table.columns(settings) == {
        "dropout": ["0", "0.1"],
        "validation %": ["99.32", "98.10"],
        "validation sd": ["0.02", "0.14"],
        "n": ["3", "2"],
        "parameters": ["5,904", "5,904"],
        "epochs": ["3", "3"],
    }


def test_only_what_tells_settings_apart_is_a_column() -> None:
    """Typed keys that differ always are; others (here the name's own kernels) only where nothing else tells."""
    a = run(name="a", model__dropout=0.1, typed=False)
    b = run(name="b", model__dropout=0.2, optimizer__lr=0.1, typed=False)
    assert [setting.values for setting in grouped(a, b)] == [{"name": "a"}, {"name": "b"}]
    same_name = [run(model__dropout=rate, typed=False) for rate in (0.1, 0.2)]
    assert {tuple(setting.values) for setting in grouped(*same_name)} == {("model.dropout",)}
    together = [run(model__dropout=rate, optimizer__lr=rate) for rate in (0.1, 0.2)]
    assert {tuple(setting.values) for setting in grouped(*together)} == {("model.dropout", "optimizer.lr")}


def test_a_typed_group_is_a_column() -> None:
    runs = []
    for option, target in (("adam", "torch.optim.Adam"), ("sgd", "torch.optim.SGD")):
        one = run(optimizer__kind=target, typed=False)
        one.overrides = [f"optimizer={option}", "seed=0"]
        runs.append(one)
    assert [setting.values for setting in grouped(*runs)] == [{"optimizer": "adam"}, {"optimizer": "sgd"}]
    assert grouped(*runs)[0].label() == "optimizer=adam"


def test_keys_with_the_same_end_keep_their_whole_name() -> None:
    settings = grouped(*(run(optimizer__lr=lr, scheduler__lr=lr) for lr in (0.1, 0.2)))
    assert settings[0].label() == "optimizer.lr=0.1 scheduler.lr=0.1"
    assert short("model._target_", ["model._target_"]) == "model"
    assert short("model._target_", ["model._target_", "model"]) == "model._target_"


def test_runs_of_other_programs_without_hyperparameters_are_settings_of_their_own() -> None:
    runs = [run(seed=None, name=path, path=path) for path in ("logs/a", "logs/b")]
    for one in runs:
        one.hyperparameters = {}
    assert [setting.label() for setting in grouped(*runs)] == ["logs/a", "logs/b"]


@pytest.mark.parametrize("in_order", [True, False])
def test_a_seed_run_twice_counts_once_and_is_told(in_order: bool) -> None:
    runs = [run(0.9, path="first", written=1.0), run(0.8, path="second", written=2.0)]
    problems: list[str] = []
    (setting,) = group(runs if in_order else runs[::-1], problems)
    assert [run.path for run in setting.runs] == ["second"]
    assert problems == ["first is left out: second has its setting and its seed"]


def test_runs_that_were_given_names_are_told_apart_by_them() -> None:
    settings = grouped(run(0.9, name="before"), run(0.8, name="after"))
    assert [setting.label() for setting in settings] == ["before", "after"]


def test_what_did_not_end_is_listed_and_not_counted() -> None:
    unfinished = run(0.5, seed=1, ended=False, path="unfinished")
    unfinished.status = "broke off: epoch 1 of 3, last written 2 h ago"
    refused = Run("mnist_narrow", "refused", "failed: model.dropout takes a number.", ended=False)
    runs = [run(0.99), unfinished, refused]
    settings = grouped(*runs)
    assert settings[0].accuracy is not None
    assert settings[0].accuracy.n == 1
    assert table.not_in_table(runs) == [
        "unfinished: broke off: epoch 1 of 3, last written 2 h ago; 50.00 % by then",
        "refused: failed: model.dropout takes a number.",
    ]
    assert verdicts(grouped(unfinished)) == ["No run that ended has an accuracy: there is no winner."]


@pytest.mark.parametrize(("lead", "judged"), [(0.0005, "exceeds"), (0.0004, "is within")])
def test_a_lead_is_compared_with_the_noise_of_the_seeds(lead: float, judged: str) -> None:
    """Two sds of 0.02 points and n=3: standard error 0.0163, 4 degrees of freedom, 2.78 of them."""
    worse = [accuracy - lead for accuracy in NOISY]
    (sentence,) = verdicts(grouped(*seeds(NOISY, model__dropout=0.0), *seeds(worse, model__dropout=0.1)))
    assert sentence.startswith(
        f"dropout=0 wins: 99.32 ± 0.02 % (n=3) on validation images, {100 * lead:.2f} points above"
    )
    assert sentence.endswith(f"{judged} the noise of 0.05 points (Welch's t-test over the seeds at 95 %).")


def test_welch_takes_unequal_spreads() -> None:
    """sd 0.01 and n=2 beside no spread at all: one degree of freedom, 12.71 standard errors of 0.00707."""
    settings = grouped(*seeds([0.98, 0.966], model__dropout=0.0), *seeds([0.9, 0.9, 0.9], model__dropout=0.1))
    assert "within the noise of 8.90 points" in verdicts(settings)[0]
    assert student(1) * 0.014 / 2**0.5 / 2**0.5 == pytest.approx(0.0890, abs=1e-4)


def test_one_run_each_is_compared_with_the_binomial_noise() -> None:
    """sqrt(2 x 0.99 x 0.01 / 5,000) x 1.96 is 0.39 points."""
    (sentence,) = verdicts(grouped(run(0.99, model__dropout=0.0), run(0.9899, model__dropout=0.1)))
    assert sentence.endswith(
        "is within the noise of 0.39 points (binomial over 5,000 images at 95 %; one seed shows no other)."
    )
    unknown = [run(0.9 + rate, model__dropout=rate, evaluated_on=None) for rate in (0.0, 0.05)]
    assert "whether this lead exceeds the noise is not known" in verdicts(grouped(*unknown))[0]


def test_seeds_of_one_setting_tell_of_the_noise_of_the_other() -> None:
    """sd 3.61 points and n=5: 2.78 x 3.61 x sqrt(1 + 1 / 5) is 10.98; binomial noise would be 1.29."""
    several = seeds([0.80, 0.86, 0.90, 0.84, 0.85], model__dropout=0.1)
    (sentence,) = verdicts(grouped(run(0.90, model__dropout=0.0), *several))
    assert sentence.endswith(
        "is within the noise of 10.98 points (one run beside 5 seeds of the other setting, at 95 %)."
    )


def test_the_binomial_noise_is_that_of_each_settings_images() -> None:
    """1.96 x sqrt(0.985 x 0.015 / 10,000 + 0.975 x 0.025 / 500) is 1.39 points."""
    many, few = (f"{n} images of the training set" for n in ("10,000", "500"))
    runs = [run(0.985, model__dropout=0.0, evaluated_on=many), run(0.975, model__dropout=0.1, evaluated_on=few)]
    assert "is within the noise of 1.39 points (binomial over 10,000 and 500 images" in verdicts(grouped(*runs))[0]


def test_seeds_that_agree_by_chance_do_not_make_every_lead_count() -> None:
    few = "100 images of the training set"
    runs = [run(a, seed=s, model__dropout=1 - a, evaluated_on=few) for a in (0.97, 0.96) for s in (0, 1)]
    assert verdicts(grouped(*runs))[0].endswith("(binomial over 100 images at 95 %; the seeds agree exactly).")
    assert "is within the noise of 5.09 points" in verdicts(grouped(*runs))[0]


def test_settings_that_make_no_mistake_at_all() -> None:
    (sentence,) = verdicts(grouped(run(1.0, model__dropout=0.0), run(1.0, model__dropout=0.1)))
    assert "0.00 points above" in sentence
    assert "is within the noise of 0.00 points (binomial over 5,000 images" in sentence


def test_runs_on_other_files_are_no_seeds_of_one_setting() -> None:
    copies = seeds([0.8, 0.81], data="cifar10 (copy)", files="cifar10 (copy), 01234567")
    settings = grouped(*copies, run(0.9, seed=1, data="cifar10", files="cifar10"))
    assert [setting.label() for setting in settings] == [
        "data files=cifar10",
        "data files=cifar10 (copy), 01234567",
    ]
    assert [setting.n for setting in settings] == [1, 2]


def test_a_result_tells_its_files(tmp_path: Path) -> None:
    sums = {"a.bin": "12", "b.bin": "34"}
    for place, publisher in (("own", True), ("copy", False)):
        our_run(tmp_path / place, data={"name": place, "publisher": publisher, "sha256": sums})
    files = {Path(each.path).name: each.files for each in read_runs([tmp_path])[0]}
    assert files == {"own": "own", "copy": f"copy, {sha256(json.dumps(sums).encode()).hexdigest()[:8]}"}


def test_what_a_settings_n_and_epochs_are() -> None:
    """A run whose loss is no number counts as no sample; runs may stop early."""
    runs = [run(None, seed=seed, epochs=epochs) for seed, epochs in enumerate((6, 19, 7))]
    for each, loss in zip(runs, (0.3, float("nan"), float("nan")), strict=True):
        each.final["validation/loss"] = loss
    cells = table.columns(grouped(*runs))
    assert (cells["n"], cells["epochs"]) == (["1 of 3"], ["6 to 19"])
    (row,) = table.records(grouped(*runs))
    assert (row["n"], row["epochs"]) == (1, "6 to 19")
    runs = seeds([0.9, 0.91])
    for each, epochs in zip(runs, (2, 10), strict=True):
        each.epochs = epochs
        del each.hyperparameters["trainer.max_epochs"]  # another program's run
    problems: list[str] = []
    group(runs, problems)
    assert [problem.partition(" and ")[2] for problem in problems] == ["others of its setting ran for 2 to 10 epochs"]


def test_settings_that_only_have_the_test_set_win_with_a_reservation() -> None:
    runs = [run(None, model__dropout=rate) for rate in (0.0, 0.1)]
    for one, accuracy in zip(runs, (0.99, 0.98), strict=True):
        one.final = {"test/accuracy": accuracy}
    (sentence,) = verdicts(grouped(*runs))
    assert "on the test set, 1.00 points above dropout=0.1" in sentence
    assert "binomial over 10,000 images" in sentence
    assert sentence.endswith("A setting chosen by the test set flatters itself: choose on a validation split.")


def test_settings_on_validation_and_on_the_test_set_are_not_compared() -> None:
    runs = [run(0.9, model__dropout=0.0), run(None, model__dropout=0.1)]
    runs[1].final = {"test/accuracy": 0.99}
    assert verdicts(grouped(*runs)) == [
        "dropout=0 has nothing to compare with: 90.00 % (n=1) on validation images.",
        "dropout=0.1 has nothing to compare with: 99.00 % (n=1) on the test set.",
    ]


def test_data_sets_have_winners_of_their_own() -> None:
    sentences = verdicts(grouped(run(0.99, name="a"), run(0.8, name="b", net__x=2, data="cifar10", typed=False)))
    assert sentences == [
        "On mnist: a has nothing to compare with: 99.00 % (n=1) on validation images.",
        "On cifar10: b has nothing to compare with: 80.00 % (n=1) on validation images.",
    ]


def test_what_has_not_ended_is_on_the_data_of_what_has() -> None:
    """Only at its end does a run tell that its files are a copy."""
    ended = run(files="cifar10 (copy), 12345678", data="cifar10 (copy)", data__source__name="cifar10")
    unfinished = run(ended=False, data="cifar10", data__source__name="cifar10")
    grouped(ended, unfinished)
    assert unfinished.data == "cifar10 (copy)"


def test_data_sets_with_names_alike_have_pictures_each(tmp_path: Path) -> None:
    for name in ("my data", "my-data"):
        our_run(tmp_path / name, data={"name": name})
    runs, warnings = read_runs([tmp_path])
    assert {name for name in plots.figures(group(runs, warnings)) if "curves" in name} == {
        "curves-my-data",
        "curves-my-data-2",
    }


def test_no_accuracy_at_all() -> None:
    """Then the loss says which is better."""
    runs = [run(None), run(float("nan"), model__dropout=0.5)]
    runs[0].final["validation/loss"], runs[1].final["validation/loss"] = 0.5, 0.25
    settings = grouped(*runs)
    assert verdicts(settings) == ["No run that ended has an accuracy: there is no winner."]
    assert "validation %" not in table.columns(settings)
    assert table.columns(settings)["validation loss"] == ["0.2500", "0.5000"]


def test_csv_and_json_have_every_digit() -> None:
    runs = [*seeds(NOISY, model__dropout=0.1, best=0.995), run(float("nan"), model__dropout=0.2)]
    settings = grouped(*runs)
    row, _ = csv.DictReader(io.StringIO(table.as_csv(settings)))
    assert (row["model.dropout"], float(row["validation_accuracy"]), row["n"]) == ("0.1", pytest.approx(0.9932), "3")
    assert table.columns(settings)["best epoch %"] == ["99.50", "-"]
    assert row["best_epoch_validation_accuracy"] == "0.995"
    content = json.loads(table.as_json(settings, runs, ["a verdict"], ["a warning"]))
    assert content["settings"][0]["validation_accuracy_sd"] == pytest.approx(0.0002)
    assert content["settings"][1]["validation_accuracy"] is None
    assert (content["verdicts"], content["warnings"], content["unfinished"]) == (["a verdict"], ["a warning"], [])


def test_a_setting_judged_on_validation_comes_first() -> None:
    runs = [run(None, model__dropout=0.1), run(0.9, model__dropout=0.0)]
    runs[0].final = {"test/accuracy": 0.99}
    assert [setting.judged_on for setting in grouped(*runs)] == ["validation", "test"]


def test_what_is_no_seed_tells_no_runs_apart() -> None:
    (setting,) = grouped(run(0.99, seed=[0, 1], path="a"), run(0.98, seed=[0, 1], path="b"))
    assert len(setting.runs) == 2


def test_a_hyperparameter_called_like_a_figure_stays_beside_it() -> None:
    runs = [run(0.99), run(0.98)]
    for one, value in zip(runs, (2, 3), strict=True):
        one.hyperparameters["n"] = value
    settings = grouped(*runs)
    columns = table.columns(settings)
    assert (columns["hparam n"], columns["n"]) == (["2", "3"], ["1", "1"])
    assert [(row["hparam n"], row["n"]) for row in csv.DictReader(io.StringIO(table.as_csv(settings)))] == [
        ("2", "1"),
        ("3", "1"),
    ]


def test_markdown_escapes_what_would_be_markup() -> None:
    settings = grouped(run(name="a|b"), run(name=HOSTILE, net__x=2, typed=False))
    lines = table.as_markdown(settings).splitlines()
    assert lines[1].startswith("| --- | --: |")
    assert lines[2].startswith(r"| a\|b | 99.00 |")
    assert lines[3].startswith(r"| \<script\>")


def test_a_long_name_does_not_widen_the_terminals_table() -> None:
    settings = grouped(run(name="x" * 500), run(name="b", net__x=2, typed=False))
    assert max(map(len, table.as_text(settings).splitlines())) < 120


def test_the_command_of_a_setting_runs_all_its_seeds() -> None:
    (setting,) = grouped(*seeds(NOISY, model__dropout=0.1))
    assert commands([setting]) == ["python train.py -m model.dropout=0.1 seed=0,1,2"]
    setting.runs = setting.runs[:1]
    setting.runs[0].overrides = ["name=a b", "seed=0", "sweep=seeds", "sweep.seeds=3"]
    assert commands([setting]) == ["python train.py 'name=a b' seed=0"]
    setting.runs[0].overrides = ["resume=runs/x"]
    assert commands([setting]) == []


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def report_on(folder: Path) -> dict[str, str]:
    problems: list[str] = []
    settings = group(read_runs([folder])[0], problems)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return plots.draw(settings, folder / "report")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dropout x lr, two seeds each; one run failed."""
    folder = tmp_path_factory.mktemp("sweep")
    for dropout in (0.0, 0.1):
        for lr in (0.003, 0.01):
            for seed in (0, 1):
                accuracy = 0.99 - dropout / 10 - lr / 5 + seed / 1000
                our_run(
                    folder / f"{dropout},{lr},{seed}", accuracy, seed=seed, model__dropout=dropout, optimizer__lr=lr
                )
    our_run(
        folder / "bad", final=None, best=None, status="failed: model.dropout takes a number.", config={}, events=False
    )
    return folder


def test_the_pictures_of_a_sweep(sweep: Path) -> None:
    drawn = report_on(sweep)
    assert list(drawn) == ["curves", "pace", "heat-map"]  # all have as many parameters
    for name in drawn:
        assert (sweep / "report" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (sweep / "report" / f"{name}.svg").read_text().startswith("<?xml")


def test_the_pictures_of_several_networks(tmp_path: Path) -> None:
    for name, size in (("small", 5904), ("large", 14000)):
        our_run(tmp_path / name, 0.99, name=name, parameters={"total": size}, net__kind=name, typed=False)
    our_run(
        tmp_path / "cifar",
        0.8,
        name="cifar",
        parameters={"total": 90000},
        net__kind="cifar",
        typed=False,
        data={"name": "cifar10 (copy)"},
    )
    assert list(plots.figures(group(read_runs([tmp_path])[0], []))) == [
        "curves-mnist",
        "pace-mnist",
        "parameters-mnist",
        "curves-cifar10-copy",
        "pace-cifar10-copy",
    ]


def test_the_pareto_front() -> None:
    """What is as large and no better, or larger and worse, is off it."""
    runs = [
        run(accuracy, name=name, parameters=size, net__kind=name, typed=False)
        for name, size, accuracy in (
            ("a", 1000, 0.97),
            ("b", 2000, 0.99),
            ("c", 3000, 0.98),
            ("d", 2000, 0.96),
            ("e", 9000, 0.995),
        )
    ]
    figure = plots.accuracy_against_parameters(grouped(*runs))
    assert figure is not None
    (axes,) = figure.axes
    front = axes.lines[-1]
    assert list(front.get_xdata()) == [1000, 2000, 9000]
    assert list(front.get_ydata()) == pytest.approx([0.03, 0.01, 0.005])


def test_a_curve_is_the_mean_of_its_seeds_and_a_band_of_their_sd(sweep: Path) -> None:
    runs = [run for run in read_runs([sweep])[0] if run.hyperparameters.get("model.dropout") == 0.1]
    figure = plots.curves(grouped(*runs), "epoch")
    assert figure is not None
    axes = next(axes for axes in figure.axes if axes.get_ylabel() == "validation loss")
    best = axes.lines[-1]  # drawn last, above the others
    assert list(best.get_ydata()) == pytest.approx([0.0401, 0.0301, 0.0201])
    band = axes.collections[-1].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(0.0201 - 0.0005 * 2**0.5)


def test_a_curve_ends_with_its_shortest_run() -> None:
    """Or its mean would jump where a seed leaves it."""
    short, long = seeds([0.93, 0.87])
    short.series = {"validation/accuracy": {1.0: 0.91, 2.0: 0.93}}
    long.series = {"validation/accuracy": {1.0: 0.81, 2.0: 0.83, 3.0: 0.87}}
    figure = plots.curves(grouped(short, long), "epoch")
    assert figure is not None
    (line,) = figure.axes[0].lines
    assert list(line.get_xdata()) == [1, 2]
    assert list(line.get_ydata()) == pytest.approx([1 - 0.86, 1 - 0.88])


def test_a_setting_judged_on_other_images_has_no_colour_in_the_heat_map() -> None:
    runs = [run(0.9, model__dropout=d, optimizer__lr=lr) for d in (0.0, 0.1) for lr in (0.1, 0.2)]
    runs[3].final = {"test/accuracy": 0.95}
    figure = plots.heat_map(grouped(*runs))
    assert figure is not None
    assert [text.get_text() for text in figure.axes[0].texts].count("test only") == 1


def test_heat_map_in_the_order_of_numbers(sweep: Path) -> None:
    figure = plots.heat_map(grouped(*read_runs([sweep])[0]))
    assert figure is not None
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("lr", "dropout")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.003", "0.01"]
    assert axes.images[0].get_array().tolist() == [pytest.approx([98.99, 98.85]), pytest.approx([97.99, 97.85])]


def test_any_name_can_be_drawn(tmp_path: Path) -> None:
    names = [r"$\frac", "_hidden", "\N{SNOWMAN}\N{GRINNING FACE}", HOSTILE, "50%_of & <b>"]
    for place, name in enumerate(names):
        size = {"total": 10 + place}
        our_run(tmp_path / str(place), 0.9 - place / 100, name=name, parameters=size, net__kind=name, typed=False)
    drawn = report_on(tmp_path)
    assert list(drawn) == ["curves", "pace", "parameters"]
    assert not [tag for svg in drawn.values() for tag, _ in Tags(svg).tags if tag in ("script", "b")]
    figure = plots.curves(group(read_runs([tmp_path])[0], []), "epoch")
    assert figure is not None
    assert [text.get_text().strip() for text in figure.legends[0].get_texts()] == names


def test_values_that_are_no_numbers_can_be_drawn(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_events(
            tmp_path / name, {"val_acc": {1: float("nan"), 2: 1.0}, "val_loss": {1: float("inf"), 2: float("nan")}}
        )
    assert list(report_on(tmp_path)) == ["curves-steps"]


def test_the_page_is_whole_in_itself_and_shows_what_names_say(tmp_path: Path) -> None:
    our_run(tmp_path / "a", name=HOSTILE, overrides=[f"name={HOSTILE}"], net__kind=HOSTILE)
    our_run(tmp_path / "b", name="b", status=f"failed: {HOSTILE}")
    drawn = report_on(tmp_path)
    runs, problems = read_runs([tmp_path])
    settings = group(runs, problems)
    text = page(HOSTILE, settings, [HOSTILE], table.not_in_table(runs), [HOSTILE], drawn, f"parsimony report {HOSTILE}")
    tags = Tags(text).tags
    assert [attributes for tag, attributes in tags if tag == "script"] == [{}]
    assert not {"link", "img", "iframe", "object", "embed"} & {tag for tag, _ in tags}
    for _, attributes in tags:
        for name, value in attributes.items():
            assert name not in ("src", "srcset", "action", "onclick", "onerror", "onload")
            assert "href" not in name or (value or "").startswith(("#", "data:"))
    assert not re.search(r"url\((?!#)|@import", text)
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 6


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    private = {"HYDRA_FULL_ERROR", "PARSIMONY_ONE_SENTENCE"}  # which other tests may have set
    environment = {name: value for name, value in os.environ.items() if name not in private}
    line = [sys.executable, "-m", "parsimony.cli", *arguments]
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120)


def test_the_command(sweep: Path, tmp_path: Path) -> None:
    done = command("report", sweep, "--out", tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    shown = done.stdout.splitlines()
    assert shown[0].split()[:3] == ["dropout", "lr", "validation"]
    assert shown[1].split()[:4] == ["0", "0.003", "98.99", "0.07"]
    assert [line for line in shown if line.startswith("dropout=0 lr=0.003 wins: 98.99 ± 0.07 % (n=2)")]
    assert "bad: failed: model.dropout takes a number." in shown
    assert (
        shown[-1] == f"written: {tmp_path / 'out' / 'index.html'}, and curves, pace, heat-map beside it as PNG and SVG"
    )
    written = (tmp_path / "out" / "index.html").read_text()
    assert written.startswith("<!doctype html>")
    assert f"parsimony report {sweep} --out {tmp_path / 'out'}" in written


@pytest.mark.parametrize("form", ["csv", "markdown", "json"])
def test_a_form_alone_is_all_that_is_printed(
    form: str, sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_events(tmp_path / "a", our_scalars(0.9)).write_bytes(b"damaged")
    our_run(tmp_path / "b")
    main([str(tmp_path), f"--{form}"])
    printed = capsys.readouterr()
    starts = {"csv": "name,validation_accuracy", "markdown": "| name |", "json": '{\n "settings"'}
    assert printed.out.startswith(starts[form])
    assert printed.err.startswith(f"warning: {tmp_path / 'a'}")
    assert not (tmp_path / "report").exists()


def test_folders_without_runs_are_told_in_a_sentence(tmp_path: Path) -> None:
    done = command("report", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: There is no run in {tmp_path}: expected TensorBoard event files")


def test_help_is_instant() -> None:
    """Counted in the processor time of its own process: a busy machine is no fault of its, nor are other children."""
    process = subprocess.Popen([sys.executable, "-m", "parsimony.cli", "--help"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert "report" in process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    assert usage.ru_utime + usage.ru_stime < PATIENCE


def test_welch_takes_unequal_numbers_of_seeds() -> None:
    """0.0099²/2 + 0.0129²/4 is 0.00952²; 2.76 degrees of freedom count as 2: 4.30 of them."""
    settings = grouped(*seeds([0.98, 0.966], model__dropout=0.0), *seeds([0.90, 0.91, 0.92, 0.93], model__dropout=0.1))
    assert "the noise of 4.09 points (Welch's" in verdicts(settings)[0]
