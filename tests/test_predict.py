"""`parsimony predict` on a trained run, in this process and as a user runs it."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from example_run import EXAMPLE, copied, typed
from PIL import Image

from parsimony.data.sources import Digits
from parsimony.trained import load

PATIENCE = 15.0  # seconds of processor time on a busy machine for what takes under 5 on an idle one
COUNT = 12


@pytest.fixture
def parsimony(monkeypatch: pytest.MonkeyPatch):
    return lambda *words: typed(monkeypatch, "predict", *words)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """The first test images, every other one dark on light."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, image in enumerate(Digits().load().test.images[:COUNT, 0].numpy()):
        Image.fromarray(255 - image if i % 2 else image).save(folder / f"{i:02}.png")
    return folder


def expected() -> torch.Tensor:
    with torch.inference_mode():
        return load(EXAMPLE).logits(Digits().load().test.images[:COUNT]).double().softmax(1)


def test_the_answers_are_the_networks(pictures: Path, parsimony, capsys) -> None:
    assert parsimony(EXAMPLE, pictures, "--format", "jsonl") == 0
    shown = capsys.readouterr()
    found = [json.loads(line) for line in shown.out.splitlines()]
    assert [entry["picture"] for entry in found] == [str(pictures / f"{i:02}.png") for i in range(COUNT)]
    probabilities = np.array([list(entry["probabilities"].values()) for entry in found])
    assert np.abs(probabilities - expected().numpy()).max() < 1e-4
    assert [entry["class"] for entry in found] == [str(answer) for answer in expected().argmax(1).tolist()]
    assert [entry["inverted"] for entry in found] == [False, True] * (COUNT // 2)
    assert shown.err.splitlines() == [
        "mnist_narrow, final weights, of epoch 20",
        f"6 of {COUNT} pictures were dark on light and were inverted",
    ]


def test_the_forms_agree(pictures: Path, parsimony, capsys) -> None:
    assert parsimony(EXAMPLE, pictures, "--format", "csv") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert list(rows[0]) == ["picture", "class", "probability", "inverted"]
    assert [float(row["probability"]) for row in rows] == pytest.approx(expected().amax(1).tolist(), abs=1e-4)
    assert parsimony(EXAMPLE, pictures) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["picture", "probability", "class"]
    for line, row in zip(lines[1:], rows, strict=True):
        picture, percent, _, answer, *note = line.split()
        assert (picture, answer, note) == (row["picture"], row["class"], ["(inverted)"] * (row["inverted"] == "true"))
        assert float(percent) == pytest.approx(100 * float(row["probability"]), abs=0.01)


def test_never_inverted(pictures: Path, parsimony, capsys) -> None:
    assert parsimony(EXAMPLE, pictures, "--invert", "never") == 0
    shown = capsys.readouterr()
    assert "(inverted)" not in shown.out
    assert "were inverted" not in shown.err


def test_a_broken_picture_is_named_and_skipped(pictures: Path, parsimony, capsys) -> None:
    (pictures / "05.png").write_text("no picture")
    ended = parsimony(EXAMPLE, pictures / "04.png", pictures / "05.png", pictures / "gone.png", pictures / "06.png")
    assert ended == "2 of 4 pictures skipped"
    shown = capsys.readouterr()
    assert [Path(line.split()[0]).name for line in shown.out.splitlines()[1:]] == ["04.png", "06.png"]
    assert f"skipped: {pictures / '05.png'}: it is no picture" in shown.err
    assert f"skipped: {pictures / 'gone.png'}: there is no such file" in shown.err
    assert parsimony(EXAMPLE, "x" * 300, pictures / "04.png") == "1 of 2 pictures skipped"
    assert capsys.readouterr().err.count("xxx: there is no such file") == 1
    assert parsimony(EXAMPLE, pictures / "05.png") == "1 of 1 pictures skipped"


def test_a_list_on_standard_input(pictures: Path, parsimony, capsys, monkeypatch) -> None:
    names = f"{pictures / '01.png'}\n\n{pictures / '00.png'}\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(names.encode())))
    assert parsimony(EXAMPLE, "-", "--format", "csv") == 0
    assert [Path(line.split(",")[0]).name for line in capsys.readouterr().out.splitlines()[1:]] == ["01.png", "00.png"]
    monkeypatch.setattr(sys, "stdin", None)
    assert "Standard input is closed" in str(parsimony(EXAMPLE, "-"))


def test_a_folder_without_pictures(tmp_path: Path, parsimony) -> None:
    assert f"There is no picture in {tmp_path}." in str(parsimony(EXAMPLE, tmp_path))


def test_a_name_of_any_bytes(tmp_path: Path, pictures: Path, parsimony, capfdbinary) -> None:
    name = os.fsencode(tmp_path) + b"/\xff\n.png"
    try:
        os.rename(os.fsencode(pictures / "00.png"), name)
    except OSError:
        pytest.skip("this file system takes no such name")
    done = run(EXAMPLE, os.fsdecode(name))
    assert done.returncode == 0, done.stderr
    assert b"\xff" in done.stdout


def run(*words: object, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "parsimony.cli", "predict", *map(str, words)]
    return subprocess.run(command, capture_output=True, timeout=120, **options)


def test_a_thousand_pictures_take_seconds_and_no_lightning(tmp_path: Path) -> None:
    images = Digits().load().test.images[:, 0].numpy()
    for i in range(1000):
        Image.fromarray(images[i % len(images)]).save(tmp_path / f"{i:04}.png")
    script = (
        "import sys, time; from parsimony.cli import main\n"
        f"sys.argv = ['parsimony', 'predict', {str(EXAMPLE)!r}, {str(tmp_path)!r}]\n"
        "main(); print(time.process_time(), 'pytorch_lightning' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    assert len(lines) == 1001
    seconds, lightning = last.split()
    assert lightning == "False"
    assert float(seconds) < PATIENCE


def test_a_reader_that_stops_early_is_no_error(pictures: Path) -> None:
    names = f"{pictures / '00.png'}\n" * 2500  # more output than a pipe holds
    command = [sys.executable, "-m", "parsimony.cli", "predict", str(EXAMPLE), "-"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdin.write(names)
    process.stdin.close()
    assert process.stdout.readline().startswith("picture")
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(120) == 141
    assert errors.splitlines() == ["mnist_narrow, final weights, of epoch 20"]


def test_a_run_that_has_moved(tmp_path: Path, pictures: Path, parsimony, capsys) -> None:
    assert parsimony(copied(tmp_path / "else where"), pictures / "00.png") == 0
