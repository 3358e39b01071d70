"""Headless Chromium and a TensorBoard server for the tests.

`python tests/browser.py SWEEP FOLDER` puts the screenshots of the docs into FOLDER: SWEEP's report and HPARAMS tab.
"""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
PATIENCE = 90.0  # seconds for TensorBoard to read a few runs and to draw them, on a busy machine

# The texts in all elements of a name, shadow trees included, since TensorBoard is made of those.
TEXTS = """
const [name, click] = arguments, found = [], texts = [];
const inner = node => [...(node.shadowRoot ? [node.shadowRoot] : []), ...node.childNodes];
const find = node => inner(node).forEach(child => {
  if (child.localName === name) found.push(child);
  find(child);
});
const read = node => {
  if (["style", "script", "template"].includes(node.localName)) return;
  if (node.nodeType === Node.TEXT_NODE && node.textContent.trim()) texts.push(node.textContent.trim());
  inner(node).forEach(read);
};
find(document);
found.forEach(read);
if (click) found.filter(node => node.textContent.includes(click)).forEach(node => node.click());
return texts;
"""


@contextmanager
def chromium(width: int = 1400, height: int = 1000) -> Iterator[Any]:
    """A selenium driver that keeps the console's messages and the requests. Raises ImportError without selenium."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--window-size={width},{height}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def requests(driver: Any) -> list[str]:
    """The addresses that were asked for since the last call, but for data within the page."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [url for url in asked if not url.startswith("data:")]


@contextmanager
def tensorboard(runs: Path) -> Iterator[str]:
    """The address of a server that shows `runs`."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(runs), "--host", "127.0.0.1", "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        yield next(found[0] for line in server.stderr if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
    finally:
        server.terminate()
        server.communicate()


def texts(driver: Any, element: str, click: str = "") -> list[str]:
    """Those within all elements of this name; `click` clicks on the one that has this text."""
    return driver.execute_script(TEXTS, element, click)


def wait_for(condition: Callable[[], Any]) -> Any:
    """What `condition` returns, once that is true."""
    end = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < end, "the page does not show it"
        time.sleep(0.5)
    return value


def show_hparams(driver: Any, address: str, view: str = "") -> list[str]:
    """Opens the HPARAMS tab and in it the table or, say, the PARALLEL COORDINATES VIEW: the texts that this shows."""
    driver.get(f"{address}/#hparams")
    table = wait_for(lambda: texts(driver, "tf-hparams-table-view"))
    if not view:
        return table
    texts(driver, "paper-tab", click=view)
    return wait_for(lambda: texts(driver, "tf-hparams-parallel-coords-plot"))


def main() -> None:
    sweep, folder = map(Path, sys.argv[1:])
    subprocess.run([sys.executable, "-m", "parsimony.cli", "report", sweep], check=True)
    with chromium(1200, 1500) as driver:
        driver.get((sweep / "report" / "index.html").resolve().as_uri())
        driver.save_screenshot(str(folder / "report-page.png"))
    with tensorboard(sweep) as address, chromium() as driver:
        show_hparams(driver, address, "PARALLEL COORDINATES VIEW")
        time.sleep(2)  # it is drawn once more
        driver.save_screenshot(str(folder / "report-hparams.png"))


if __name__ == "__main__":
    main()
