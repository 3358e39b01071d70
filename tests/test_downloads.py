"""Downloads from real servers on 127.0.0.1: mirrors, checksums, several processes, archives that are up to no good."""

import contextlib
import gzip
import itertools
import json
import os
import pty
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import termios
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from damage import CIFAR_NAMES, CLASSES, IDX_NAMES, archive, cifar_files, damaged, idx_files
from hydra.utils import instantiate
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from test_sources import HUNDRED, assert_small_cifar, assert_small_idx, attempt, md5, small_cifar, small_idx, write

from parsimony.data import download
from parsimony.errors import InputError


class Server:
    """Serves `files`; a name in `broken` ends early, one in `slow` comes after that many seconds."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.broken, self.slow = files, set[str](), dict[str, float]()
        self.asked: Counter[str] = Counter()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.rpartition("/")[2]
                server.asked[name] += 1
                time.sleep(server.slow.get(name, 0))
                if name not in server.files:
                    return self.send_error(404)
                content = server.files[name]
                with contextlib.suppress(ConnectionError):
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content[: len(content) // 2] if name in server.broken else content)

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/data/"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def serve() -> Iterator[type[Server]]:
    """Server, each of whose instances is stopped after the test."""
    started: list[Server] = []

    def start(files: dict[str, bytes]) -> Server:
        started.append(Server(files))
        return started[-1]

    yield start
    for server in started:
        server.http.shutdown()
        server.http.server_close()


def left_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def closed_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/"


# IDX files and mirrors


def test_a_new_idx_set_is_one_config(serve, tmp_path) -> None:
    server = serve(idx_files())
    config = OmegaConf.create(
        {
            "root": str(tmp_path),
            "source": {
                "_target_": "parsimony.data.sources.Idx",
                "name": "made_up",
                "root": "${root}",
                "folder": "made_up",
                "mirrors": [server.url],
                "files": {name: md5(content) for name, content in idx_files().items()},
                "classes": CLASSES,
                "shape": [1, 5, 4],
            },
        }
    )
    source = instantiate(config.source)
    source.download()
    found = source.load()
    assert_small_idx(found)
    assert (found.name, found.publisher) == ("made_up", True)
    assert left_in(tmp_path) == {f"made_up/{name}" for name in IDX_NAMES}
    assert (tmp_path / "made_up" / IDX_NAMES[0]).stat().st_mode & 0o777 == 0o644
    source.download()
    assert set(server.asked.values()) == {1}


def test_only_what_is_missing_is_downloaded_and_nothing_replaced(serve, tmp_path) -> None:
    server = serve(idx_files())
    write(tmp_path / "small", {IDX_NAMES[0]: b"mine"})
    small_idx(tmp_path, mirrors=[server.url]).download()
    assert (tmp_path / "small" / IDX_NAMES[0]).read_bytes() == b"mine"
    assert set(server.asked) == set(IDX_NAMES[1:])


def test_mirrors_are_tried_in_turn(serve, tmp_path) -> None:
    without, wrong, broken = serve({}), serve(dict.fromkeys(IDX_NAMES, b"<html>log in")), serve(idx_files())
    broken.broken.update(IDX_NAMES)
    good, unasked = serve(idx_files()), serve(idx_files())
    mirrors = [closed_port(), without.url, wrong.url, broken.url, good.url, unasked.url]
    source = small_idx(tmp_path, mirrors=mirrors)
    source.download()
    assert_small_idx(source.load())
    assert all(sum(server.asked.values()) == 4 for server in (without, wrong, broken, good))
    assert not unasked.asked
    assert left_in(tmp_path / "small") == set(IDX_NAMES)


def test_when_nothing_can_be_had_each_mirror_has_its_reason(serve, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT", (5, 1.5))
    without, wrong, broken, slow = serve({}), serve({IDX_NAMES[0]: b"x"}), serve(idx_files()), serve(idx_files())
    broken.broken.add(IDX_NAMES[0])
    slow.slow[IDX_NAMES[0]] = 4
    refused = closed_port()
    source = small_idx(tmp_path, mirrors=[refused, without.url, wrong.url, broken.url, slow.url, "nowhere"])
    with pytest.raises(InputError) as error:
        source.download()
    told = str(error.value)
    assert told.startswith(f"{tmp_path / 'small' / IDX_NAMES[0]} is missing")
    for mirror, reason in [
        (refused, "no connection"),
        (without.url, "HTTP 404"),
        (wrong.url, "wrong checksum"),
        (broken.url, "the connection broke off"),
        (slow.url, "timed out"),
        ("nowhere", "Invalid URL"),
    ]:
        assert f"{mirror}: {reason}" in told
    assert "by hand" in told
    assert "data=digits" in told
    assert left_in(tmp_path) == set()
    assert not (tmp_path / "small").exists()


def test_what_was_downloaded_stays_when_the_rest_cannot_be_had(serve, tmp_path) -> None:
    files = dict([*idx_files().items()][:2])
    with pytest.raises(InputError, match="HTTP 404"):
        small_idx(tmp_path / "new" / "data", mirrors=[serve(files).url]).download()
    assert left_in(tmp_path / "new" / "data" / "small") == set(files)


def test_no_network_is_told_in_seconds(tmp_path) -> None:
    start = time.monotonic()
    with pytest.raises(InputError, match="no mirror is named"):
        small_idx(tmp_path).download()
    with pytest.raises(InputError, match="no connection"):
        small_idx(tmp_path, mirrors=[closed_port(), closed_port()]).download()
    assert time.monotonic() - start < 5
    assert sum(download.TIMEOUT) < 30


def test_progress_bar_on_a_terminal(serve, tmp_path, monkeypatch) -> None:
    screen, terminal = pty.openpty()
    with os.fdopen(terminal, "w") as stderr, os.fdopen(screen, "rb", buffering=0) as shown:
        termios.tcsetwinsize(stderr, (24, 80))
        monkeypatch.setattr(sys, "stderr", stderr)
        small_idx(tmp_path, mirrors=[serve({}).url, serve(idx_files()).url]).download()
        os.set_blocking(screen, False)
        text = (shown.read(65536) or b"").decode()
    assert f"{IDX_NAMES[0]}: 100%" in text


def test_several_processes_download_once(serve, tmp_path) -> None:
    server = serve(idx_files() | {"bin.tar.gz": archive(cifar_files())})
    server.slow.update(dict.fromkeys(server.files, 0.3))  # long enough for all to be there before the first is done
    script = (
        "import json, sys, time; from pathlib import Path\n"
        "from parsimony.data.sources import Cifar10, Idx\n"
        "root, me, idx, cifar = Path(sys.argv[1]), *map(json.loads, sys.argv[2:])\n"
        "(root / f'ready{me}').touch()\n"
        "while len(list(root.glob('ready*'))) < 3: time.sleep(0.01)\n"
        "for source in Idx(**idx), Cifar10(**cifar):\n"
        "    source.download(); assert source.load().publisher\n"
    )
    sources = [asdict(make(tmp_path, mirrors=[server.url])) for make in (small_idx, small_cifar)]
    command = [sys.executable, "-c", script, str(tmp_path)]
    children = [
        subprocess.Popen(
            [*command, str(i), *map(json.dumps, sources)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for i in range(3)
    ]
    said = [child.communicate(timeout=120)[0] for child in children]
    assert said == ["", "", ""]  # not a terminal: no progress bar, no log
    assert [child.returncode for child in children] == [0, 0, 0]
    assert server.asked == dict.fromkeys(server.files, 1)


def test_who_waited_for_one_that_failed_comes_next(tmp_path) -> None:
    """The one that fails removes the folder that it had made, and the lock in it."""
    folder = tmp_path / "made" / "in vain"
    held = threading.Event()

    def wait_and_write() -> None:
        held.wait()
        with download.writing(folder):
            (folder / "file").touch()

    waiting = threading.Thread(target=wait_and_write)
    waiting.start()
    with contextlib.suppress(KeyError), download.writing(folder):
        held.set()
        time.sleep(0.3)  # it asks for the lock every 0.05 s
        raise KeyError
    waiting.join()
    assert left_in(folder) == {"file"}


def test_a_wrong_certificate_bundle_is_no_full_disk(serve, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "missing.pem"))
    secure, plain = "https://127.0.0.1:9/", serve(idx_files())
    with pytest.raises(InputError, match=rf"could not be downloaded \({secure}: Could not find a suitable TLS"):
        small_idx(tmp_path, mirrors=[secure]).download()
    small_idx(tmp_path, mirrors=[secure, plain.url]).download()
    assert left_in(tmp_path / "small") == set(IDX_NAMES)


# Disks that cannot be written


def test_read_only_folder(serve, powerless) -> None:
    server = serve(idx_files())
    with tempfile.TemporaryDirectory() as root:  # not tmp_path, which is below folders that nobody may enter
        os.chmod(root, 0o555)
        with pytest.raises(InputError, match="Permission denied") as error:
            small_idx(Path(root), mirrors=[server.url]).download()
        assert root in str(error.value)
        assert "data.root=" in str(error.value)
        os.chmod(root, 0o755)
        write(Path(root) / "small", idx_files())
        os.chmod(Path(root) / "small", 0o555)
        source = small_idx(Path(root), mirrors=[server.url])
        source.download()  # all is there: nothing to write
        assert source.load().publisher
        os.chmod(Path(root) / "small", 0o755)
    assert not server.asked


def test_full_disk(serve, tmp_path) -> None:
    resource = pytest.importorskip("resource")
    files = {"bin.tar.gz": archive(cifar_files())}
    server = serve(files)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (1000, 9000):  # the first stops the download, the second (with the archive there) the extraction
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with pytest.raises(InputError, match="Cannot place files in") as error:
                small_cifar(tmp_path, mirrors=[server.url]).download()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert str(tmp_path / "bin") in str(error.value)
        assert left_in(tmp_path) <= set(files)
        write(tmp_path, files)


def test_a_file_where_a_folder_belongs(tmp_path) -> None:
    (tmp_path / "small").write_bytes(b"")
    with pytest.raises(InputError, match="small"):
        small_idx(tmp_path).download()


# CIFAR-10's archive


def test_cifar_is_downloaded_extracted_and_known(serve, tmp_path) -> None:
    server = serve({"bin.tar.gz": archive(cifar_files())})
    source = small_cifar(tmp_path, mirrors=[server.url])
    source.download()
    found = source.load()
    assert_small_cifar(found)
    assert (found.name, found.publisher) == ("cifar10", True)
    assert left_in(tmp_path / "bin") == {*CIFAR_NAMES, "SHA256SUMS"}
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS"], cwd=tmp_path / "bin", check=True)
    (tmp_path / "bin" / "data_batch_2.bin").unlink()
    source.download()  # from the archive, which is still there
    assert source.load().publisher
    assert server.asked == {"bin.tar.gz": 1}


def test_archive_that_lies_there_is_checked_first(tmp_path) -> None:
    write(tmp_path, {"bin.tar.gz": archive(cifar_files())[:-1]})
    with pytest.raises(InputError, match=r"bin.tar.gz is damaged or not the publisher's: its md5 is \w+, expected"):
        small_cifar(tmp_path).download()
    assert left_in(tmp_path) == {"bin.tar.gz"}


def test_files_of_two_versions_are_not_mixed(tmp_path) -> None:
    other = bytes(len(cifar_files()["test_batch.bin"]))
    write(tmp_path, {"bin.tar.gz": archive(cifar_files())})
    write(tmp_path / "bin", {"test_batch.bin": other})
    source = small_cifar(tmp_path)
    source.download()
    with pytest.raises(InputError, match=r"test_batch.bin is not the file that SHA256SUMS beside it lists"):
        source.load()
    (tmp_path / "bin" / "SHA256SUMS").unlink()  # as the sentence says
    assert source.load().name == "cifar10 (unverified files)"


def member(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, link
    return info


FIVE = {name: content for name, content in cifar_files().items() if name != "test_batch.bin"}
SIZE = len(cifar_files()["test_batch.bin"])


@pytest.mark.parametrize(
    ("packed", "told"),
    [
        (archive(cifar_files(), member("/tmp/evil.bin", 9)), "'/tmp/evil.bin', which no data set has"),
        (archive(cifar_files(), member("../evil.bin", 9)), "'../evil.bin', which no data set has"),
        (archive(cifar_files(), member("bin/../../evil.bin", 9)), "which no data set has"),
        (archive(FIVE, member("bin/test_batch.bin", kind=tarfile.SYMTYPE, link="/etc/hostname")), "no data set has"),
        (archive(FIVE, member("bin/test_batch.bin", kind=tarfile.LNKTYPE, link="bin/data_batch_1.bin")), "no data set"),
        (archive(FIVE, member("bin/test_batch.bin", kind=tarfile.CHRTYPE)), "no data set has"),
        (archive(FIVE, member("bin/test_batch.bin", kind=tarfile.FIFOTYPE)), "no data set has"),
        (archive(FIVE, member("bin/test_batch.bin", SIZE + 1)), f"has {SIZE + 1} bytes, expected {SIZE}"),
        (archive(FIVE, member("bin/test_batch.bin", SIZE - 1)), f"has {SIZE - 1} bytes, expected {SIZE}"),
        (archive(FIVE, member("bin/deeper/test_batch.bin", SIZE)), "lacks test_batch.bin"),
        (archive(cifar_files(), member("bin/readme.html", 100_000_000)), "holds more than expected"),
        (archive(cifar_files(), *(member(f"bin/{i}") for i in range(2500))), "holds more than expected"),
        (archive(FIVE), "lacks test_batch.bin"),
        (archive(cifar_files())[:-3000], "is damaged"),
        (gzip.compress(b"no tar" * 500), "is damaged"),
        (b"no gzip" * 500, "is damaged"),
        (b"", "is damaged"),
    ],
    ids=itertools.count(),  # bytes would become ids, and gzip's hold the time: pytest-xdist's processes would differ
)
def test_archives_that_are_up_to_no_good(tmp_path, packed: bytes, told: str) -> None:
    root = tmp_path / "root"
    write(root, {"bin.tar.gz": packed})
    tracemalloc.start()
    with pytest.raises(InputError, match=told) as error:
        small_cifar(root, checksum=md5(packed)).download()  # the checksum agrees: the archive itself is the danger
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(root / "bin.tar.gz") in str(error.value)
    assert left_in(tmp_path) == {"root/bin.tar.gz"}
    assert not Path("/tmp/evil.bin").exists()
    assert peak < 5_000_000


def test_a_header_that_swallows_memory_is_refused(tmp_path) -> None:
    packed = archive(cifar_files(), member("bin/long", 50_000_000, tarfile.GNUTYPE_LONGNAME))
    write(tmp_path, {"bin.tar.gz": packed})
    tracemalloc.start()
    with pytest.raises(InputError, match="holds more than expected"):
        small_cifar(tmp_path, checksum=md5(packed)).download()
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


@HUNDRED
@given(data=st.data())
def test_damaged_archives(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """With the checksum of the damaged file, so that it is read: files are placed all together or not at all."""
    root = tmp_path_factory.getbasetemp() / "damaged_archives"
    shutil.rmtree(root, ignore_errors=True)
    tar = gzip.decompress(archive(cifar_files()))
    if data.draw(st.booleans()):
        packed = data.draw(damaged(archive(cifar_files()), [b"", gzip.compress(tar[:5000])]))
    else:
        packed = gzip.compress(data.draw(damaged(tar, [b"", tar[512:]])), compresslevel=1)
    write(root, {"bin.tar.gz": packed})
    source = small_cifar(root, checksum=md5(packed))
    _, told = attempt(source.download)
    if told:
        assert str(root / "bin.tar.gz") in told
        assert left_in(root) == {"bin.tar.gz"}
    else:
        assert left_in(root / "bin") == {*CIFAR_NAMES, "SHA256SUMS"}
