"""The benchmark's pieces at their smallest, without TensorFlow; the committed table against its figures."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile, record_function

from parsimony.config import CONF
from parsimony.nets.layers import FastDropout, conv
from parsimony.published.pages import BEGIN, END, filled
from parsimony.published.rows import current_config, read_runs, record_rows, rows

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import bench
import step_profile
import table
from test_published import made_up


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of two rounds of two batches, on random pixels."""
    folder = tmp_path_factory.mktemp("results")
    none = str(folder / "no_data")
    sizes = ["--rounds", "2", "--images", "64", "--threads", "1"]
    ways = ["--networks", "mnist_plain", "--against", "bare", "stock"]
    bench.main([*ways, *sizes, "--data", none, "--results", str(folder)])
    return folder


def test_each_contender_is_timed_in_each_round(results: Path) -> None:
    result = json.loads((results / "mnist_plain.json").read_text())
    assert (result["batch"], result["images_per_slice"], result["data"]) == (32, 64, "random pixels")
    assert list(result["contenders"]) == ["ours", "bare", "stock"]
    for row in result["contenders"].values():
        speed = row["images_per_second"]
        assert len(speed["runs"]) == 2
        assert 0 < speed["min"] <= speed["median"] <= speed["max"]
        assert 100 < row["peak_mb"] < 5000
        limit = result["matmul_gflops"]["float32"]
        assert row["share_of_limit"]["float32"] == pytest.approx(
            6 * result["macs"] * speed["median"] / 1e9 / limit, rel=0.01, abs=1e-4
        )


def test_ratios_pair_the_runs_of_a_round(results: Path) -> None:
    result = json.loads((results / "mnist_plain.json").read_text())
    runs = {name: row["images_per_second"]["runs"] for name, row in result["contenders"].items()}
    assert set(result["ratios"]) == {"bare", "stock"}
    for name, ratio in result["ratios"].items():
        pairs = [ours / other for ours, other in zip(runs["ours"], runs[name], strict=True)]
        assert ratio["runs"] == pytest.approx(pairs, rel=1e-3)


def test_precisions_are_compared(tmp_path: Path) -> None:
    sizes = ["--rounds", "1", "--images", "64", "--threads", "1", "--data", str(tmp_path / "no_data")]
    ways = ["--networks", "mnist_plain", "--against", "float32", "bfloat16"]
    bench.main([*ways, *sizes, "--results", str(tmp_path)])
    (result,) = table.read(tmp_path)
    found = {way: contender["precision"] for way, contender in result["contenders"].items()}
    assert (found["float32"], found["bfloat16"]) == ("float32", "bfloat16")
    result["ratios"] = {"bfloat16": {"median": 1.5, "min": 1.25, "max": 2.0}}
    row = table.render_precision([result]).splitlines()[-1]
    assert row.startswith(f"| `mnist_plain` | {found['ours']} | ")
    assert row.endswith(" | 1.50x (1.25 to 2.00) bfloat16 |")


def test_a_failing_contender_ends_the_benchmark_and_says_why(tmp_path: Path) -> None:
    bench.save_images("mnist_plain", 64, tmp_path, tmp_path / "no_data")
    task = {"contender": "bare", "network": "nonsense", "batch": 32, "folder": str(tmp_path), "threads": 1}
    with pytest.raises(SystemExit, match=r"(?s)bare failed.*model/nonsense"):
        bench.Worker(sys.executable, tmp_path / "log", **task).ready()


def test_every_network_has_the_batch_of_its_recipe() -> None:
    assert set(bench.BATCH) == {path.stem for path in (CONF / "model").glob("*.yaml")}
    found = {row.network: current_config(row.experiment).data.batch_size for row in rows()}
    for experiment in (*(row.experiment for row in record_rows()), "teacher/mnist", "teacher/cifar"):
        config = current_config(experiment)
        found.setdefault(config.model._target_.rpartition(".")[2], config.data.batch_size)
    assert {network: found[network] for network in bench.BATCH if network in found} == {
        network: batch for network, batch in bench.BATCH.items() if network in found
    }


def test_all_runs_of_an_engine_had_its_layers() -> None:
    for engine, folder in table.ENGINES.items():
        layers = {run.layers or run.config["engine"]["layers"] for run in read_runs(folder)}
        assert layers == {"native" if engine == "fast" else "torch"}


def test_the_readmes_table_is_that_of_the_results() -> None:
    readme = (table.HERE / "README.md").read_text()
    assert BEGIN in readme
    assert readme == filled(readme, *table.tables()), "run python benchmarks/table.py"


def test_a_table_shows_the_figures_and_where_they_are_from(results: Path) -> None:
    (result,) = table.read(results)
    text = filled(f"# Head\n{BEGIN}\nold\n{END}\nfoot\n", table.render([result]))
    assert text.startswith("# Head\n")
    assert text.endswith("\nfoot\n")
    assert "old" not in text
    row = next(line for line in text.splitlines() if line.startswith("| `mnist_plain`"))
    assert f"{result['contenders']['ours']['images_per_second']['median']:,.0f} (" in row
    assert f"{result['ratios']['stock']['median']:.2f}x (" in row
    for fact in (result["machine"], "1 threads", result["date"], f"torch {result['versions']['torch']}"):
        assert fact in text


def test_profile_tells_kinds_of_work_apart() -> None:
    net = conv(1, 8, dropout=0.5)
    net.dropout = FastDropout(0.5)
    for module in net:
        step_profile._wrap(module, "forward", f"module:{type(module).__name__}")
    optimizer = torch.optim.Adam(net.parameters())
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        with record_function("bench:batch"):
            images = torch.rand(8, 1, 28, 28).mul(2)
        with record_function("bench:step"):
            loss = net(images).square().mean()
        loss.backward()
        optimizer.step()
    totals = step_profile.shares(profiler.events())
    for kind in ("convolution", "batch norm", "dropout", "ReLU"):
        assert totals[kind, "forward"] > 0
        assert totals[kind, "backward"] > 0
    assert totals["optimizer", "forward"] > 0
    assert totals["data", "forward"] > 0
    assert ("data", "backward") not in totals
    text = step_profile.table(totals, 1, wall=sum(totals.values()) / 1e3 * 2)
    assert text.splitlines()[-1].split()[-1] == "50.0%"


def test_engines_are_compared_with_the_standard_error() -> None:
    engines = {
        "fast": [made_up(seed, final) for seed, final in enumerate((0.994, 0.992))],
        "plain": [made_up(seed, final) for seed, final in enumerate((0.9915, 0.9915))],
    }
    text = table.render_accuracy(engines)
    assert "| `fast` | 99.300 % (sd 0.141) | 2 | 99.40 99.20 |" in text
    assert text.endswith("The means differ by +0.150 points (fast - plain; standard error 0.100).")
