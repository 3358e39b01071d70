"""What Ctrl-C does where nothing can be lost. Imports next to nothing: Ctrl-C may come while all else is imported."""

import os
import signal
from types import FrameType

INTERRUPTED, TERMINATED = 130, 143  # exit codes after Ctrl-C and SIGTERM, as shells have them


def end_at_once() -> None:
    """From here on Ctrl-C ends the process: an exception in the midst of an import may be lost, or be a traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where the shell has it ignored
        signal.signal(signal.SIGINT, _end)


def raise_again() -> None:
    """From here on Ctrl-C raises KeyboardInterrupt, as Python has it."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)
