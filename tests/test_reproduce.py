"""python -m parsimony.reproduce: trains what results/ does not hold."""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import compose_run
from omegaconf import OmegaConf
from test_published import made_up, row

from parsimony import reproduce
from parsimony.errors import InputError
from parsimony.published.rows import Row

FAKE_TRAINING = """
import sys
from pathlib import Path
from parsimony.runs import Epoch, Result
keys = dict(argument.split("=", 1) for argument in sys.argv[1:])
seed = int(keys["seed"])
if seed == 1:
    sys.exit("out of luck")
final = Epoch(20, test={"loss": 0.02, "accuracy": 0.99})
folder = Path("runs", keys["name"], f"seed-{seed}")
Result(keys["name"], [], seed, status="completed", final=final).write(folder)
with open("trained.txt", "a") as names:
    names.write(keys["name"] + "\\n")
"""


def test_it_trains_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    (tmp_path / "train.py").write_text(FAKE_TRAINING)
    monkeypatch.setattr(reproduce, "PROJECT", tmp_path)
    monkeypatch.setattr(
        sys, "argv", ["reproduce", "mnist_narrow", "--seeds", "2", "--results", str(tmp_path / "results")]
    )
    with pytest.raises(SystemExit) as ended:
        reproduce.main()
    assert ended.value.code == 1
    out = capsys.readouterr().out
    assert "reproduce/mnist_narrow seed 0: 99.00 %" in out
    assert "reproduce/mnist_narrow seed 1 failed" in out
    assert "out of luck" in (tmp_path / "runs" / "reproduce" / "mnist_narrow" / "seed-1" / "output.log").read_text()
    kept = list((tmp_path / "results" / "reproduce" / "mnist_narrow").iterdir())
    assert [path.name for path in kept] == ["seed-0.json"]


def test_a_run_is_trained_by_its_rows_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.py").write_text("import sys; print(sys.argv[1:])")
    monkeypatch.setattr(reproduce, "PROJECT", tmp_path)
    row = Row("mnist_tiny", [], 5, group="record", change="no_ema", overrides=("callbacks=[default]",))
    assert not reproduce.train(row, 3, tmp_path / "results")
    assert (tmp_path / "runs" / row.name / "seed-3" / "output.log").read_text().splitlines() == [
        "['experiment=record/mnist_tiny', 'name=ablation/mnist_tiny/no_ema', 'callbacks=[default]', 'seed=3', "
        "'engine.threads=1']"
    ]


def test_a_teacher_is_trained_first_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.py").write_text(FAKE_TRAINING)
    monkeypatch.setattr(reproduce, "PROJECT", tmp_path)
    taught = "ablation/mnist_micro/taught_by_a_larger_network"
    for results in ("results", "again"):
        monkeypatch.setattr(sys, "argv", ["reproduce", taught, "--seeds", "1", "--results", str(tmp_path / results)])
        with pytest.raises(SystemExit) as ended:
            reproduce.main()
        assert ended.value.code == 0
    assert (tmp_path / "trained.txt").read_text().splitlines() == ["teacher/mnist", taught, taught]


def test_a_signal_ends_the_trainings_too(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit('its epochs are kept'));"
        "open('started', 'w'); time.sleep(60)"
    )
    code = "from parsimony import reproduce; reproduce.PROJECT = reproduce.Path.cwd(); reproduce.main()"
    words = ["mnist_narrow", "--seeds", "3", "--jobs", "1", "--results", str(tmp_path / "results")]
    process = subprocess.Popen([sys.executable, "-c", code, *words], cwd=tmp_path)
    while not (tmp_path / "started").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.terminate()
    assert process.wait(20) == 143
    runs = tmp_path / "runs" / "reproduce" / "mnist_narrow"
    assert [path.name for path in runs.iterdir()] == ["seed-0"]
    assert (runs / "seed-0" / "output.log").read_text() == "its epochs are kept\n"


def test_runs_on_other_files_are_not_mixed_with_the_published_ones(tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "train.py").write_text(FAKE_TRAINING)
    monkeypatch.setattr(reproduce, "PROJECT", tmp_path)
    there = replace(made_up(1), data={"name": "mnist", "sha256": {"train": "a copy's"}})
    assert not reproduce.train(row(there), 0, tmp_path / "results")
    assert "reproduce/mnist_narrow seed 0 was trained on other files than the runs in" in capsys.readouterr().out
    assert reproduce.train(row(), 0, tmp_path / "again")
    assert [path.name for path in tmp_path.rglob("seed-*.json")] == ["seed-0.json"]


def test_it_skips_what_is_there_and_refuses_what_another_recipe_made(tmp_path: Path) -> None:
    config = OmegaConf.to_container(compose_run(tmp_path, "experiment=reproduce/mnist_narrow"))
    there = replace(made_up(2), config=config)
    assert reproduce.missing(row(there), tmp_path) == [0, 1, 3, 4]
    config["optimizer"]["lr"] = 1.0
    with pytest.raises(InputError, match=r"seed-2.json was made by another recipe \(optimizer\): remove it"):
        reproduce.missing(row(replace(there, config=config)), tmp_path)


def test_an_unknown_network_is_one_sentence() -> None:
    command = [sys.executable, "-m", "parsimony.reproduce", "mnist_nrrow"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "there is no recipe mnist_nrrow; there are reproduce/mnist_wide, reproduce/mnist_wide_plus" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_asked_for_twice_is_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []
    monkeypatch.setattr(reproduce, "train", lambda row, seed, results: trained.append((row.name, seed)) or True)
    results = ("--results", str(tmp_path), "--seeds", "1")
    monkeypatch.setattr(sys, "argv", ["reproduce", "record/mnist_micro", "record", *results])
    with pytest.raises(SystemExit):
        reproduce.main()
    assert trained.count(("record/mnist_micro", 0)) == 1


@pytest.mark.parametrize("option", ["--jobs", "--seeds"])
def test_numbers_below_one_are_refused(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["reproduce", "record", option, "0"])
    with pytest.raises(SystemExit) as ended:
        reproduce.main()
    assert ended.value.code == 2
