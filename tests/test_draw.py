"""`parsimony draw`: drawings become pictures like the training's, answers are the network's, other sites get none."""

import base64
import http.client
import json
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from short_runs import QUIET
from torch import Tensor
from torch.nn.functional import interpolate, pad
from trained_runs import untrained_run

from parsimony.data.sources import Digits
from parsimony.draw.answer import SIDE, Artist
from parsimony.draw.command import main
from parsimony.draw.digit import like_mnist, like_uci
from parsimony.draw.server import Server
from parsimony.errors import InputError
from parsimony.explain.layers import stages
from parsimony.trained import load

pytestmark = pytest.mark.filterwarnings(*(f"ignore:.*{message}.*" for message in QUIET))
MOST_PROCESSOR_TIME = 0.05  # seconds a stroke


@pytest.fixture(scope="module")
def artist(tmp_path_factory: pytest.TempPathFactory) -> Artist:
    """With a network for MNIST's pictures, which need not be there."""
    return Artist(load(untrained_run(tmp_path_factory.mktemp("draw") / "run", "model=mnist_sep", "data.root=nowhere")))


@pytest.fixture(scope="module")
def server(artist: Artist) -> Iterator[Server]:
    with Server(artist, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def a_seven(top: int = 20, left: int = 30, height: int = 60, width: int = 40, pen: int = 8) -> Tensor:
    drawing = torch.zeros(SIDE, SIDE)
    drawing[top : top + pen, left : left + width] = 1
    for row in range(height):
        right = left + width - round(row * (width - pen) / height)
        drawing[top + row, right - pen : right] = 1
    return drawing


def box(picture: Tensor) -> tuple[int, int]:
    """Height and width of what is inked."""
    rows, columns = ((picture[0] > 0.1).any(axis).nonzero() for axis in (1, 0))
    return int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1


def test_the_longer_side_is_20_pixels_and_the_centre_of_mass_is_in_the_middle() -> None:
    for drawing in (a_seven(), a_seven(height=30, width=70), a_seven(2, 2, 100, 100), a_seven(90, 90, 20, 18)):
        picture = like_mnist(drawing)
        assert picture.shape == (1, 28, 28)
        assert max(box(picture)) == 20
        for axis in (1, 2):
            mass = picture[0].sum(2 - axis)
            assert float((mass * (torch.arange(28) + 0.5)).sum() / mass.sum()) == pytest.approx(14.5, abs=0.51)


def test_size_and_place_of_the_drawing_do_not_matter() -> None:
    picture = like_mnist(a_seven(10, 10, 60, 40, 8))
    assert torch.equal(like_mnist(a_seven(40, 55, 60, 40, 8)), picture)
    large = interpolate(a_seven(10, 10, 30, 20, 4)[None, None, :56, :56], (112, 112))[0, 0]
    assert torch.allclose(like_mnist(large), like_mnist(a_seven(10, 10, 30, 20, 4)), atol=0.05)
    assert like_mnist(large, side=14).shape == (1, 14, 14)


def test_the_embedded_digits_come_through_as_they_are() -> None:
    """Drawn large and off the middle, they are again what they were: eight rows high, in the middle."""
    images = Digits().load().test.images[:100].float() / 255
    drawings = [pad(large, (20, 8, 3, 25)) for large in interpolate(images, (84, 84), mode="bilinear")[:, 0]]
    again = torch.stack([like_uci(drawing) for drawing in drawings])
    assert again.shape == images.shape
    shifted = images.roll(3, dims=-1)
    assert (again - images).abs().mean() < 0.6 * (shifted - images).abs().mean()
    assert min(box(picture)[0] for picture in again) >= 26


def test_a_straight_one_stays_slim_and_nothing_is_nothing() -> None:
    line = torch.zeros(SIDE, SIDE)
    line[10:100, 50:56] = 1
    assert box(like_uci(line))[1] <= 10
    assert box(like_mnist(line)) == (20, 1)
    for bring in (like_mnist, like_uci):
        assert bring(torch.zeros(SIDE, SIDE)).eq(0).all()
        assert bring(torch.zeros(SIDE, SIDE)).shape == (1, 28, 28)


def as_bytes(drawing: Tensor) -> bytes:
    return (drawing * 255).byte().numpy().tobytes()


def test_the_answer_is_the_networks(artist: Artist) -> None:
    answer = artist.answer(as_bytes(a_seven()))
    image = like_mnist(a_seven())
    with torch.no_grad():
        expected = artist.trained.logits(image[None])[0].softmax(0)
    assert answer["probabilities"] == pytest.approx(expected.tolist(), abs=1e-6)
    assert base64.b64decode(answer["picture"]) == (image * 255).round().byte().numpy().tobytes()
    assert answer["network"] == artist.network()["id"]
    layers = artist.network()["layers"]
    found = stages(artist.trained.net, image[None])
    assert len(layers) == len(answer["maps"]) == len(found) == 11
    for layer, text, stage in zip(layers, answer["maps"], found, strict=True):
        levels = torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8).double() - 127
        maps = stage.maps[0, : layer["count"]].double()
        assert torch.allclose(levels.view(maps.shape), maps / stage.maps.abs().max() * 127, atol=0.51)
    assert artist.answer(bytes(SIDE * SIDE))["probabilities"] is None


def test_a_stroke_takes_less_than_50_ms(artist: Artist) -> None:
    """Of processor time, the median of twenty; by the clock it depends on what else the machine does."""
    drawing = as_bytes(a_seven())
    times = []
    for _ in range(20):
        start = time.process_time()
        json.dumps(artist.answer(drawing))
        times.append(time.process_time() - start)
    assert statistics.median(times) < MOST_PROCESSOR_TIME


@pytest.mark.parametrize(
    ("model", "keys", "what"),
    [
        ("cifar_sep", (), r"cifar_sep was trained on 3x32x32 pictures of airplane, automobile, bird and so on"),
        ("mnist_narrow", ("data=fashion_mnist",), r"trained on 1x28x28 pictures of T-shirt/top"),
    ],
)
def test_other_networks_are_refused(model: str, keys: tuple[str, ...], what: str, tmp_path: Path) -> None:
    run = untrained_run(tmp_path / "run", f"model={model}", *keys)
    with pytest.raises(InputError, match=rf"draw is for networks of digits, and .*{what}"):
        main([str(run)])


def ask(server: Server, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    connection.request(method, path, body or None, {name.replace("_", "-"): value for name, value in headers.items()})
    reply = connection.getresponse()
    return reply.status, reply.read()


def test_the_page_and_its_answers(server: Server) -> None:
    for path, word in (("/", b"<!doctype html>"), ("/page.js", b"pointerdown"), ("/page.css", b"color-scheme")):
        status, content = ask(server, "GET", path)
        assert status == 200
        assert word in content
    assert json.loads(ask(server, "GET", "/network")[1])["classes"] == list("0123456789")
    status, content = ask(server, "POST", "/answer", as_bytes(a_seven()), Origin=server.address)
    assert status == 200
    assert sum(json.loads(content)["probabilities"]) == pytest.approx(1)


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "127.0.0.1:1"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
def test_other_sites_get_no_answer(server: Server, headers: dict[str, str]) -> None:
    for method, path, body in (("GET", "/network", b""), ("POST", "/answer", as_bytes(a_seven()))):
        status, content = ask(server, method, path, body, **headers)
        assert (status, content) == (403, b"Only the page itself may ask.")


def test_what_is_no_drawing(server: Server) -> None:
    assert ask(server, "POST", "/answer", b"short")[0] == 400
    assert ask(server, "POST", "/answer", bytes(SIDE * SIDE + 1))[0] == 400
    assert ask(server, "POST", "/answer")[0] == 400
    assert ask(server, "GET", "/../command.py")[0] == 404
    assert ask(server, "GET", "/page.html/")[0] == 404
    assert ask(server, "POST", "/network")[0] == 404
    assert ask(server, "OPTIONS", "/answer")[0] == 501
    assert ask(server, "GET", "/")[0] == 200


def test_it_listens_on_this_machine_alone(server: Server) -> None:
    assert server.socket.getsockname()[0] == "127.0.0.1"


def test_a_taken_port(server: Server, artist: Artist) -> None:
    with pytest.raises(InputError, match=rf"Cannot listen on port {server.server_port} .*take another --port"):
        main([str(artist.trained.folder), "--port", str(server.server_port)])
    with pytest.raises(InputError, match="--port takes 0 to 65535, not 70000"):
        main(["nowhere", "--port", "70000"])


def test_ctrl_c_ends_it_with_130(artist: Artist) -> None:
    command = [sys.executable, "-m", "parsimony.cli", "draw", str(artist.trained.folder)]
    # A shell that starts it in the background would have it ignore Ctrl-C.
    default: Any = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, preexec_fn=default, **pipes)
    try:
        line = process.stdout.readline()
        assert line.startswith("draw a digit at http://127.0.0.1:"), process.stderr.read()
        address = ("127.0.0.1", int(line.split()[4].rpartition(":")[2]))
        with socket.create_connection(address, timeout=60):
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=120) == ("", "")
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
