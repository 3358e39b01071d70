"""The pages of `parsimony explain` and `parsimony draw` in a real browser."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, DRIVER, chromium, requests, wait_for
from trained_runs import untrained_run

from parsimony.draw.answer import Artist
from parsimony.draw.server import Server
from parsimony.explain.command import explain
from parsimony.trained import load

pytest.importorskip("selenium", reason="selenium is not installed: pip install -e '.[dev]'")
pytestmark = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no browser: apt-get install chromium chromium-driver"),
]
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
MARKUP = '"><img src=x onerror=alert(2)>'
SEVEN = [[(0.25, 0.2), (0.72, 0.2), (0.45, 0.85)]]
ONE = [[(0.5, 0.15), (0.5, 0.85)]]


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with chromium() as driver:
        yield driver


@pytest.fixture
def phone(driver: Any) -> Iterator[Any]:
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    yield driver
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.fixture(scope="module", params=["mnist_sep", "cifar_sep"])
def page(request: pytest.FixtureRequest, made_up_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run whose name would like to be code."""
    folder = tmp_path_factory.mktemp("explain")
    keys = (f"model={request.param}", f"data.root={made_up_data}", "data.validation=10", "data.batch_size=20")
    run = untrained_run(folder / "run", *keys, name=f"{request.param} {MARKUP}")
    explain(load(run), folder / "explain.html")
    return folder / "explain.html"


def test_explain_opens_from_disk_without_asking_for_anything(page: Path, driver: Any) -> None:
    requests(driver)
    driver.get(page.as_uri())
    assert requests(driver) == [page.as_uri()]
    assert driver.get_log("browser") == []
    shown = driver.execute_script("return [...document.images].map(image => image.naturalWidth)")
    assert len(shown) > 200
    assert min(shown) > 0
    assert driver.execute_script("return document.scripts.length") == 0
    text = driver.execute_script("return document.body.innerText")
    assert f"{MARKUP}, 2 epochs" in text
    assert "NaN" not in text
    boxes = driver.execute_script("return [...document.querySelectorAll('.tile rect')].map(r => r.getBBox().width)")
    assert len(boxes) >= 8
    sizes = "return [...document.querySelectorAll('.tile img, .tile svg')].map(tile => tile.getBoundingClientRect())"
    assert all(0 < max(size["width"], size["height"]) <= 260 for size in driver.execute_script(sizes))
    assert max(boxes) <= 32


def test_explain_on_a_phone_in_the_dark(page: Path, phone: Any) -> None:
    phone.get(page.as_uri())
    assert phone.execute_script("return [document.documentElement.scrollWidth, innerWidth]") == [390, 390]
    style = "const style = getComputedStyle(document.body); return [style.backgroundColor, style.color]"
    assert phone.execute_script(style) == ["rgb(23, 24, 27)", "rgb(228, 229, 232)"]
    phone.find_element("link text", "Receptive field").click()
    assert (
        abs(phone.execute_script("return document.getElementById('receptive-field').getBoundingClientRect().top")) < 2
    )


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """With the network of the docs, trained on the embedded digits."""
    with Server(Artist(load(Path(__file__).parents[1] / "docs" / "run")), 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def draw(driver: Any, strokes: Sequence[Sequence[tuple[float, float]]], pointer: str = "mouse") -> None:
    """Points are parts of the paper's width and height."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.actions.pointer_input import PointerInput

    paper = driver.find_element("id", "paper")
    driver.execute_script("arguments[0].scrollIntoView()", paper)
    side = paper.size["width"]
    for stroke in strokes:
        chain = ActionChains(driver, duration=50, devices=[PointerInput(pointer, pointer)])
        (first, *rest) = [(round((x - 0.5) * side), round((y - 0.5) * side)) for x, y in stroke]
        chain.w3c_actions.pointer_action.move_to(paper, *first)
        chain.w3c_actions.pointer_action.pointer_down()
        for place in rest:
            chain.w3c_actions.pointer_action.move_to(paper, *place)
        chain.w3c_actions.pointer_action.pointer_up()
        chain.perform()


def answer(driver: Any) -> str:
    return driver.find_element("id", "best").text


def test_a_digit_drawn_with_the_mouse_is_read(server: Server, driver: Any) -> None:
    requests(driver)
    driver.get(server.address)
    wait_for(lambda: driver.find_elements("css selector", "#maps canvas"))
    draw(driver, ONE)
    wait_for(lambda: answer(driver) == "1")
    driver.find_element("id", "clear").click()
    wait_for(lambda: answer(driver) == "")
    draw(driver, SEVEN)
    wait_for(lambda: answer(driver) == "7")  # what it says of half a 7 is its own affair
    assert {url.removeprefix(server.address) for url in requests(driver)} == {
        *("/", "/page.css", "/page.js", "/network", "/answer")
    }
    shares = [float(text.text.rstrip(" %")) for text in driver.find_elements("css selector", "#bars span:last-child")]
    assert sum(shares) == pytest.approx(100, abs=1)
    assert shares.index(max(shares)) == 7
    bright = """return [...document.querySelectorAll("#picture, #maps canvas")].map(canvas =>
      Math.max(...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.map((v, i) =>
        i % 4 == 3 ? 0 : v)))"""
    picture, *maps = driver.execute_script(bright)
    assert picture > 200
    assert len(maps) == 16 + 32 + 7 * 16 + 16 + 10
    assert sum(value > 100 for value in maps) > len(maps) / 2
    assert driver.get_log("browser") == []


def test_undo_takes_the_last_stroke_back(server: Server, driver: Any) -> None:
    driver.get(server.address)
    wait_for(lambda: driver.find_elements("css selector", "#maps canvas"))
    draw(driver, SEVEN)
    wait_for(lambda: answer(driver) == "7")
    picture = "return document.getElementById('picture').toDataURL()"
    before = driver.execute_script(picture)
    draw(driver, [[(0.1, 0.9), (0.9, 0.9)]])
    wait_for(lambda: driver.execute_script(picture) != before)
    driver.find_element("id", "undo").click()
    wait_for(lambda: driver.execute_script(picture) == before)
    driver.find_element("id", "undo").click()
    wait_for(lambda: answer(driver) == "")


def test_draw_on_a_phone_with_a_finger(server: Server, phone: Any) -> None:
    phone.get(server.address)
    wait_for(lambda: phone.find_elements("css selector", "#maps canvas"))
    assert phone.execute_script("return [document.documentElement.scrollWidth, innerWidth]") == [390, 390]
    draw(phone, ONE, pointer="touch")
    wait_for(lambda: answer(phone) == "1")
    assert phone.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(23, 24, 27)"


def test_the_page_says_so_when_the_server_is_gone(server: Server, driver: Any) -> None:
    with Server(server.artist, 0) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        driver.get(other.address)
        wait_for(lambda: driver.find_elements("css selector", "#maps canvas"))
        other.shutdown()
    driver.execute_cdp_cmd("Network.enable", {})
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    draw(driver, ONE)
    wait_for(lambda: "Does parsimony draw still run?" in driver.find_element("id", "about").text)
    online = offline | {"offline": False, "downloadThroughput": -1, "uploadThroughput": -1}
    driver.execute_cdp_cmd("Network.emulateNetworkConditions", online)
    driver.get_log("browser")
