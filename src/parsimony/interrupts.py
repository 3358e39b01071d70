"""What Ctrl-C does where nothing can be lost. Imports next to nothing: Ctrl-C may come while all else is imported."""

import os
import signal
from pathlib import Path
from types import FrameType

INTERRUPTED, TERMINATED = 130, 143  # exit codes after Ctrl-C and SIGTERM, as shells have them

_made: list[str] = []  # innermost first


def end_at_once() -> None:
    """From here on Ctrl-C ends the process: an exception in the midst of an import may be lost, or be a traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where the shell has it ignored
        signal.signal(signal.SIGINT, _end)


def raise_again() -> None:
    """From here on Ctrl-C raises KeyboardInterrupt, as Python has it."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def will_make(folder: Path) -> None:
    """To be told before `folder`, a run's or a sweep's, is made, with those of its parents that are not there."""
    _made[:] = [str(path) for path in (folder, *folder.parents) if not path.exists()]


def remove_made() -> None:
    """Removes what was made of the folder that `will_make` was told of, as far as it is empty."""
    for folder in _made:
        try:
            os.rmdir(folder)
        except OSError:  # not empty, or not there yet
            continue


def _end(number: int, frame: FrameType | None) -> None:
    remove_made()
    os._exit(INTERRUPTED)
