"""How a training ends before its time: what its record, its exit code and its last sentence say."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pytorch_lightning.utilities.exceptions import MisconfigurationException, SIGTERMException

from parsimony import checkpoints
from parsimony.config import to_type
from parsimony.errors import InputError, RunError
from parsimony.interrupts import INTERRUPTED, TERMINATED


def status(error: BaseException) -> str:
    """What result.json says of a training that `error` ended."""
    interrupted = isinstance(error, SystemExit | KeyboardInterrupt | SIGTERMException)
    return "interrupted" if interrupted else f"failed: {str(error) or type(error).__name__}"


def quiet_about_disks(failed: threading.ExceptHookArgs) -> None:
    """TensorBoard's thread hands an OSError on to the next call of its logger, which raises it again."""
    if not isinstance(failed.exc_value, OSError):
        threading.__excepthook__(failed)


@contextmanager
def ends_explained(folder: Path, max_epochs: int) -> Iterator[None]:
    """An interruption ends the process with the exit code that shells know; a full disk is told in a sentence."""
    try:
        yield
    except SIGTERMException:  # Lightning raises it once the step is done
        print(_how_to_resume(folder, max_epochs), flush=True)
        sys.exit(TERMINATED)
    except (KeyboardInterrupt, SystemExit) as error:
        if isinstance(error, SystemExit) and not isinstance(error.__context__, KeyboardInterrupt):
            raise
        print(_how_to_resume(folder, max_epochs), flush=True)
        sys.exit(INTERRUPTED)
    except RunError as error:
        raise RunError(f"{error} {_last_good(folder)}") from error
    except MisconfigurationException as error:  # what Lightning finds only now
        raise InputError(" ".join(str(error).split())) from error
    except OSError as error:
        where = error.filename or folder
        raise RunError(f"{error.strerror or error}: {where}. {_how_to_resume(folder, max_epochs)}") from error


def _last_good(folder: Path) -> str:
    path, epochs = checkpoints.newest(folder)
    return f"The last good checkpoint is {path}, of epoch {epochs}." if epochs else "No epoch was finished before."


def _how_to_resume(folder: Path, max_epochs: int) -> str:
    _, epochs = checkpoints.newest(folder)
    kept = f"{epochs} of {max_epochs} epochs are kept" if epochs else "No epoch is kept"
    return f"{kept}; to go on: python train.py {to_type('resume', folder)}"
