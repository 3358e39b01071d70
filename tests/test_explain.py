"""`parsimony explain`: its page for every network of the house, and what it says to bad input."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import group_options
from short_runs import QUICK, QUIET, train_in
from torch import nn
from trained_runs import untrained_run

from parsimony.errors import InputError
from parsimony.explain.command import explain, main
from parsimony.explain.document import Section, Sum
from parsimony.explain.layers import WINDOWS, stages
from parsimony.explain.page import page
from parsimony.explain.sections import sections
from parsimony.explain.weights import convolution, one_by_one
from parsimony.report.page import inline
from parsimony.trained import BEST, load

pytestmark = pytest.mark.filterwarnings(*(f"ignore:.*{message}.*" for message in QUIET))
NOTIONS = (
    *("Convolution", "Kernels", "3x3 convolution", "1x1 convolution", "Activation", "Feature maps"),
    *("Receptive field", "Epochs", "Mistakes"),
)
SMALL = ("data.validation=10", "data.batch_size=20")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the digits in the package."""
    result = train_in(tmp_path_factory.mktemp("trained") / "run", *QUICK, "model=mnist_sep", "seed=3")
    return Path(result.folder)


@pytest.fixture(scope="module")
def explained(trained: Path) -> dict[str, Section]:
    return {section.title: section for section in sections(load(trained))}


def test_the_page_has_every_notion_and_is_the_same_again(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(trained), "--out", str(tmp_path / "new" / "page.html")])
    assert capsys.readouterr().out == f"written: {tmp_path / 'new' / 'page.html'}\n"
    text = (tmp_path / "new" / "page.html").read_text()
    for notion in NOTIONS:
        assert f"<h2>{notion}</h2>" in text
    assert "mnist_sep, 1 epoch on digits with seed 3: 13,794 parameters" in text
    explain(load(trained), tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text() == text


def test_the_sum_is_what_the_convolution_gives(explained: dict[str, Section]) -> None:
    (worked,) = (part for part in explained["Convolution"].parts if isinstance(part, Sum))
    total = sum(float((patch * kernel).sum()) for _, patch, kernel in worked.terms)
    assert total + worked.bias == pytest.approx(worked.result, abs=1e-5)
    assert worked.result > 0


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(1, 4, 3, dilation=2),
        nn.Conv2d(1, 4, 3, dilation=2, padding=2, padding_mode="reflect"),
        nn.Conv2d(3, 6, (2, 5), stride=(3, 2), padding=(1, 0), groups=3, bias=False),
        nn.Conv2d(1, 4, (5, 31), padding="same"),  # no window is wholly inside
    ],
    ids=str,
)
def test_it_is_whatever_the_windows_shape(conv: nn.Conv2d) -> None:
    images = torch.rand(1, conv.in_channels, 28, 28)
    (worked,) = (part for part in convolution(images[0], stages(conv, images)).parts if isinstance(part, Sum))
    total = sum(float((patch * kernel).sum()) for _, patch, kernel in worked.terms)
    assert total + worked.bias == pytest.approx(worked.result, abs=1e-5)


def test_kernels_before_are_the_initial_ones(trained: Path, explained: dict[str, Section]) -> None:
    (figure,) = explained["Kernels"].parts
    before, after = ([tile.pixels for tile in row.tiles] for row in figure.rows)
    assert len(before) == len(after) == 16
    assert any(not np.array_equal(*pair) for pair in zip(before, after, strict=True))
    untouched = {section.title: section for section in sections(_as_initial(trained))}
    (figure,) = untouched["Kernels"].parts
    same, again = ([tile.pixels for tile in row.tiles] for row in figure.rows)
    assert all(np.array_equal(*pair) for pair in zip(same, again, strict=True))
    assert "changed them by 0\N{NO-BREAK SPACE}%" in untouched["Kernels"].text[1]


def _as_initial(folder: Path):
    trained = load(folder)
    trained.net.load_state_dict(trained.initial().state_dict())
    return trained


def test_mistakes_are_counted_and_named(trained: Path, explained: dict[str, Section]) -> None:
    run = load(trained)
    data = run.data()
    data.setup()
    test = data.images.test
    with torch.no_grad():
        wrong = int((run.logits(test.images).argmax(1) != test.labels).sum())
    (figure,) = explained["Mistakes"].parts
    assert f"the 24 worst of {wrong}" in figure.caption
    assert len(figure.rows[0].tiles) == 24
    right = len(test.labels) - wrong
    assert f"It answers {right} of 360 test images correctly" in explained["The network and the picture"].text[0]


def test_the_best_epochs_weights_are_named(trained: Path) -> None:
    text = sections(load(trained, BEST))[0].text[0]
    assert text.startswith("mnist_sep, 1 epoch (best weights on validation, of epoch 1) on digits with seed 3")


def test_the_best_epochs_page_shows_the_epochs_after_it_too(tmp_path: Path) -> None:
    run = untrained_run(tmp_path / "run", "data=digits", epochs=3)
    kept = torch.load(run / "checkpoints" / "last.ckpt")
    for entry, accuracy in zip(kept["history"], (0.75, 0.5, 0.25), strict=True):
        entry["val/accuracy"] = accuracy
    torch.save(kept, run / "checkpoints" / "last.ckpt")
    torch.save({**kept, "epoch": 0, "history": kept["history"][:1]}, run / "checkpoints" / "best.ckpt")
    text = " ".join(next(section for section in sections(load(run, BEST)) if section.title == "Epochs").text)
    assert "for 3 epochs." in text
    assert "25.00\u00a0% of them right after the last epoch, 75.00\u00a0% after the best, number 1." in text


def test_a_page_that_cannot_be_written_leaves_the_old_one(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("of before")
    code = "import resource, signal, sys; from pathlib import Path; from parsimony.explain.command import explain; "
    code += "from parsimony.trained import load; network = load(Path(sys.argv[1])); "
    code += "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)); "
    code += "explain(network, Path(sys.argv[2]))"
    done = subprocess.run(
        [sys.executable, "-c", code, trained, tmp_path / "page.html"], capture_output=True, text=True, check=False
    )
    assert "File too large: " in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert (tmp_path / "page.html").read_text() == "of before"


def test_another_picture(trained: Path) -> None:
    first, other = (sections(load(trained), number)[0].parts[0] for number in (0, 300))
    assert not np.array_equal(first.rows[0].tiles[0].pixels, other.rows[0].tiles[0].pixels)
    with pytest.raises(InputError, match=r"There is no test image 360: digits has 0 to 359"):
        sections(load(trained), 360)


@pytest.mark.parametrize("model", group_options("model"))
def test_every_network_is_explained(model: str, made_up_data: Path, tmp_path: Path) -> None:
    run = untrained_run(tmp_path / "run", f"model={model}", f"data.root={made_up_data}", *SMALL)
    network = load(run)
    shown = {section.title: section for section in sections(network)}
    assert tuple(shown)[1:] == NOTIONS
    assert page("title", list(shown.values())).count("<section ") == 1 + len(NOTIONS)
    none = "This network has none." in shown["1x1 convolution"].text
    assert none == (model in ("cifar_base", "cifar_plain", "cifar_resnet9", "mnist_residual"))
    (maps,) = shown["Feature maps"].parts
    assert len(maps.rows) == sum(isinstance(module, WINDOWS) for module in network.net.modules())
    text, (figure, _) = " ".join(shown["Receptive field"].text), shown["Receptive field"].parts
    height, width = network.shape[1:]
    squares = [(tile.label.partition(":")[0], tile.box) for tile in figure.rows[0].tiles]
    whole = [
        n for n, (left, top, side) in squares if max(left, top) <= 0 and left + side >= width and top + side >= height
    ]
    assert (f"from {whole[0]} on it covers the whole picture" if whole else "in no layer does it cover") in text
    channels = {tile.pixels.shape[2] for tile in shown["Mistakes"].parts[0].rows[0].tiles}
    assert channels == {3}


def test_a_network_without_convolutions_is_told_so(trained: Path) -> None:
    network = load(trained)
    dense = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    with pytest.raises(InputError, match="mnist_sep has no convolution, and it is convolutions that are explained"):
        sections(replace(network, net=dense))


def test_a_1x1_convolution_in_groups_mixes_no_channels() -> None:
    net = nn.Sequential(nn.Conv2d(4, 8, 1, groups=4))
    assert "This network has none." in one_by_one(net, net, stages(net, torch.rand(1, 4, 5, 5))).text


def test_names_are_escaped(made_up_data: Path, tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>"
    run = untrained_run(tmp_path / "run", "data=digits", "model=mnist_narrow", name=name)
    explain(load(run), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert name not in text
    assert "&lt;img src=x onerror=alert(1)&gt;" in text


def test_a_chart_takes_the_colours_of_the_page() -> None:
    assert (
        inline('<?xml?><svg style="fill: #fefefe; stroke: #1c1d21"/>')
        == '<svg style="fill: none; stroke: currentColor"/>'
    )


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def command(*arguments: object) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "parsimony.cli", *map(str, arguments)]
        return subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=300)

    return command


def test_bad_input_is_told_in_a_sentence(
    trained: Path, tmp_path: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (tmp_path / "empty").mkdir()
    done = command("explain", "empty")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: empty is no run's folder: it has no config.yaml.\n"
    assert list((tmp_path / "empty").iterdir()) == []
    assert "usage: parsimony explain" in command("explain", "--help").stdout


def test_bad_input(trained: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(trained, tmp_path / "moved"))
    with pytest.raises(InputError, match="is a folder: name a file"):
        main([str(moved), "--out", str(tmp_path)])
    (moved / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(InputError, match=r"moved has no checkpoints/best.ckpt"):
        main([str(moved), "--best"])
    (moved / "checkpoints" / "last.ckpt").write_bytes(b"nothing")
    with pytest.raises(InputError, match="damaged or no checkpoint"):
        main([str(moved)])
    (moved / "checkpoints" / "last.ckpt").unlink()
    with pytest.raises(InputError, match="the run ended before its first epoch did"):
        main([str(moved)])
    assert not (moved / "explain.html").exists()
