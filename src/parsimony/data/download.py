"""Getting files: mirrors in turn, checksums, one download however many processes ask, safe extraction."""

import gzip
import hashlib
import re
import sys
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from parsimony.errors import InputError

TIMEOUT = (3.05, 20)  # seconds to connect (one repeated SYN), seconds between bytes: no network is soon told


def digest(data: bytes, algorithm: str = "sha256") -> str:
    return hashlib.new(algorithm, data, usedforsecurity=False).hexdigest()


def check_checksums(checksums: Iterable[str | None]) -> None:
    """Raises InputError unless each is "md5:..." or "sha256:...", or None where none is known."""
    for checksum in checksums:
        if checksum is not None and not re.fullmatch("md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", checksum):
            raise InputError(f"{checksum!r} is no checksum: write md5: or sha256: and its lower-case hex digits.")


def matches(data: bytes, checksum: str | None) -> bool:
    algorithm, _, expected = (checksum or "sha256:").partition(":")
    return digest(data, algorithm) == expected


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Makes `folder` and holds its lock, so that one process at a time writes there.

    Folders that were made in vain go again. Raises InputError for a read-only folder or a full disk.
    """
    try:
        lock, made = _locked(folder)
        with lock:
            try:
                yield
            except BaseException:
                with suppress(OSError):  # something is in them
                    if made and [path.name for path in folder.iterdir()] == [".lock"]:
                        (folder / ".lock").unlink()
                        for path in made:
                            path.rmdir()
                raise
    except OSError as error:
        raise InputError(
            f"Cannot place files in {folder} ({error}): make it writable, make room, or choose another folder with "
            "data.root=FOLDER."
        ) from error


def _locked(folder: Path) -> tuple[AbstractContextManager[Any], list[Path]]:
    """The lock of `folder`, held until its context ends, and the folders that were made for it."""
    from filelock import FileLock

    while True:
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        try:
            return FileLock(folder / ".lock").acquire(), made
        except FileNotFoundError:  # who held it had made the folder in vain, and has removed it
            continue


def fetch(path: Path, mirrors: Sequence[str], checksum: str | None) -> None:
    """Downloads `path.name` from the first mirror whose copy has the checksum ("md5:..." or "sha256:...").

    The file appears at `path` whole or not at all. Raises InputError when no mirror has it, OSError when it cannot
    be written.
    """
    import pooch  # with its requests and tqdm a quarter of a second, which only a download should cost
    from tqdm import tqdm

    pooch.get_logger().setLevel("WARNING")
    failures = []
    for mirror in mirrors:
        # disable=None: no bar unless stderr is a terminal. total=1: until pooch knows, as it tests the bar's truth.
        with tqdm(desc=path.name, total=1, unit="B", unit_scale=True, disable=None, file=sys.stderr) as bar:
            downloader = pooch.HTTPDownloader(progressbar=bar, chunk_size=2**16, timeout=TIMEOUT)
            try:
                url = f"{mirror.rstrip('/')}/{path.name}"
                pooch.retrieve(url, checksum, path.name, path.parent, downloader=downloader)
            except (OSError, ValueError) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise  # the disk's; those of the network have no number
                failures.append(f"{mirror}: {_reason(error)}")
                bar.leave = False
            else:
                path.chmod(0o644)  # pooch's temporary file was for its owner only; a data folder is often shared
                return
    raise InputError(
        f"{path} is missing and could not be downloaded ({'; '.join(failures) or 'no mirror is named'}). "
        "Put the file there by hand, name the folder that has it (data.root=FOLDER; of a trained network, --data-root "
        "FOLDER), or use data=digits, which needs no download."
    )


def _reason(error: Exception) -> str:
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP {error.response.status_code}"
    if "timed out" in str(error):
        return "timed out"
    if "resolve" in str(error):
        return "host not found"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate was not accepted"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return "wrong checksum" if "does not match the known hash" in str(error) else str(error)


class _Bounded:
    """A stream that gives `limit` bytes and then raises InputError: no archive is expanded without bound."""

    def __init__(self, stream: gzip.GzipFile, limit: int, path: Path) -> None:
        self.stream, self.left, self.path = stream, limit, path

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise InputError(f"{self.path} holds more than expected: delete it to download it again.")
        return data


def check(path: Path, checksum: str) -> None:
    """Raises InputError unless the file has the checksum."""
    import pooch

    algorithm, _, expected = checksum.partition(":")
    if (found := pooch.file_hash(path, algorithm)) != expected:
        raise InputError(
            f"{path} is damaged or not the publisher's: its {algorithm} is {found}, expected {expected}. "
            "Delete it to download it again."
        )


def members(path: Path, folder: str, sizes: dict[str, int]) -> Iterator[tuple[str, bytes]]:
    """Yields (name, content) of the files `folder/name` in a .tar.gz, each of exactly the size expected.

    Nothing is ever written where a member's name says. Raises InputError for a damaged archive and for members no
    honest archive has: absolute or `..` paths, links, devices, more bytes than expected.
    """
    limit = sum(sizes.values()) + 2**20  # 1 MiB for headers, padding, and the small texts beside the data
    left = dict(sizes)
    try:
        with gzip.open(path) as packed:
            stream = _Bounded(packed, limit, path)
            tar = tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|")  # noqa: SIM115 (nothing of it stays open)
            for member in tar:
                where = PurePosixPath(member.name)
                if where.is_absolute() or ".." in where.parts or not (member.isfile() or member.isdir()):
                    raise InputError(f"{path} holds {member.name!r}, which no data set has: delete the archive.")
                if where.parent == PurePosixPath(folder) and where.name in left:
                    if member.size != left.pop(where.name):
                        raise InputError(
                            f"{path}: {member.name} has {member.size} bytes, expected {sizes[where.name]}. "
                            "Delete the archive to download it again."
                        )
                    content = tar.extractfile(member)
                    assert content is not None  # it is a file
                    yield where.name, content.read()
            while stream.read(2**16):  # to the checksum at the end of it, which tar does not need
                pass
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is damaged ({error}): delete it to download it again.") from error
    if left:
        raise InputError(f"{path} lacks {', '.join(left)}: delete it to download it again.")
