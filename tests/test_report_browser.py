"""The report's page and TensorBoard's in a real browser."""

import json
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, DRIVER, chromium, requests, show_hparams, tensorboard, texts, wait_for
from conftest import compose_run
from report_runs import our_run

from parsimony.report.command import main
from parsimony.report.read import read_runs
from parsimony.training import train

pytest.importorskip("selenium", reason="selenium is not installed: pip install -e '.[dev]'")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no browser: apt-get install chromium chromium-driver"
)

HOSTILE = "<script>alert(1)</script>"
MARKUP = '"><img src=x onerror=alert(2)>'


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page on a sweep of which one run has a name and another a hyperparameter that would like to be code."""
    folder = tmp_path_factory.mktemp("runs")
    for place, name in enumerate((HOSTILE, "b", "c", MARKUP)):
        for seed in (0, 1):
            accuracy = 0.99 - place / 100 + seed / 1000
            our_run(folder / name.replace("/", "_") / str(seed), accuracy, seed=seed, name=name, net__kind=name)
    our_run(folder / "failed", status=f"failed: {MARKUP}")
    (folder / "damaged").mkdir()
    (folder / "damaged" / "result.json").write_text("{")
    main([str(folder)])
    return folder / "report" / "index.html"


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with chromium() as driver:
        yield driver


def test_the_page_opens_from_disk_without_asking_for_anything(index: Path, driver: Any) -> None:
    driver.get(index.as_uri())
    assert requests(driver) == [index.as_uri()]
    assert driver.get_log("browser") == []
    drawn = driver.execute_script("return [...document.querySelectorAll('svg')].map(svg => svg.getBBox().width)")
    assert len(drawn) == 2
    assert min(drawn) > 100


def test_names_are_shown_and_never_run(index: Path, driver: Any) -> None:
    driver.get(index.as_uri())  # an open alert would make what follows fail
    assert driver.execute_script("return [document.scripts.length, document.images.length]") == [1, 0]
    shown = driver.execute_script("return document.body.innerText")
    assert f"{HOSTILE} kind={HOSTILE} wins" in shown
    assert f"failed: {MARKUP}" in shown


def test_a_click_on_a_heading_sorts(index: Path, driver: Any) -> None:
    driver.get(index.as_uri())
    headings = driver.find_elements("css selector", "th button")
    place = [heading.text for heading in headings].index("validation %")
    cells = "return [...document.querySelectorAll('tbody tr')].map(row => row.cells[arguments[0]].textContent)"
    accuracies = driver.execute_script(cells, place)
    assert accuracies == sorted(accuracies, reverse=True)
    headings[place].click()
    assert driver.execute_script(cells, place) == sorted(accuracies)
    headings[place].click()
    assert driver.execute_script(cells, place) == accuracies


def test_the_page_on_a_phone_in_the_dark(index: Path) -> None:
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    with chromium() as driver:
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
        driver.get(index.as_uri())
        assert driver.execute_script("return [document.documentElement.scrollWidth, innerWidth]") == [390, 390]
        style = "return [getComputedStyle(document.body).backgroundColor, getComputedStyle(arguments[0]).fill]"
        background, ink = driver.execute_script(style, driver.find_element("css selector", "svg [id^=text_] > g"))
        assert (background, ink) == ("rgb(23, 24, 27)", "rgb(228, 229, 232)")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two short runs of ours, which differ in dropout and learning rate."""
    folder = tmp_path_factory.mktemp("trained")
    short = ("data=digits", "model=mnist_narrow", "trainer=cpu", "trainer.max_epochs=1", "~callbacks.pictures")
    for dropout, lr in ((0, 0.003), (0.2, 0.01)):
        given = (f"model.dropout={dropout}", f"optimizer.lr={lr}", "+trainer.limit_train_batches=3")
        train(compose_run(folder / f"{dropout},{lr}", *short, *given))
    return folder


@pytest.fixture(scope="module")
def address(trained: Path) -> Iterator[str]:
    """Of a TensorBoard that has read both."""
    with tensorboard(trained) as address:
        wait_for(lambda: len(fetch(f"{address}/data/plugin/scalars/tags")) == 2)
        yield address


def fetch(address: str, **query: str) -> Any:
    with urllib.request.urlopen(f"{address}?{urllib.parse.urlencode(query)}") as answer:
        return json.load(answer)


def test_tensorboard_has_the_scalars_that_the_report_has(trained: Path, address: str, driver: Any) -> None:
    runs, _ = read_runs([trained])
    for run in runs:
        ((_, _, accuracy),) = fetch(f"{address}/data/plugin/scalars/scalars", run=run.path, tag="val/accuracy")
        assert accuracy == pytest.approx(run.final["validation/accuracy"])
    driver.get(f"{address}/#timeseries")
    wait_for(lambda: {run.path for run in runs} <= set(texts(driver, "runs-data-table")))


def test_tensorboard_compares_hyperparameters_with_final_accuracies(address: str, driver: Any) -> None:
    """Without a click: its table and its parallel coordinates show but five hyperparameters and five metrics."""
    expected = {"dropout", "lr", "final/accuracy_test", "final/accuracy_validation"}
    values = {"0.20000", "0.010000"}
    show_hparams(driver, address)
    wait_for(lambda: expected | values <= set(texts(driver, "tf-hparams-table-view")))
    show_hparams(driver, address, "PARALLEL COORDINATES VIEW")
    wait_for(lambda: expected <= set(texts(driver, "tf-hparams-parallel-coords-plot")))
