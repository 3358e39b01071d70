"""What became of each fault: counted, and with FAULTS=FILE in the environment kept there for docs/reliability.py."""

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from parsimony.runs import commit, cpu_name, replace_file, versions


class Tally:
    """`outcomes` count what went as it should, `losses` tell what did not."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.losses: list[str] = []

    def survived(self, outcome: str) -> None:
        self.outcomes[outcome] += 1

    def lost(self, why: str) -> None:
        self.losses.append(why)

    def check(self, fine: bool, outcome: str, why: str) -> None:
        if fine:
            self.survived(outcome)
        else:
            self.lost(why)


@contextmanager
def tally(kind: str, what: str) -> Iterator[Tally]:
    """Counts the faults of one kind; `what` says what is done and compared. Fails if anything was lost."""
    counted, began = Tally(), time.monotonic()
    yield counted
    survived, lost = counted.outcomes.total(), len(counted.losses)
    if file := os.environ.get("FAULTS"):
        path = Path(file)
        kept = json.loads(path.read_text()) if path.exists() else {}
        head, dirty = commit()
        kept[kind] = {
            "what": what,
            "tried": survived + lost,
            "survived": survived,
            "lost": lost,
            "outcomes": dict(counted.outcomes.most_common()),
            "losses": counted.losses,
            "seconds": round(time.monotonic() - began),
            "machine": cpu_name(),
            "versions": versions(),
            "commit": head,
            "dirty": dirty,
        }
        replace_file(path, json.dumps(kept, indent=1) + "\n")
    assert not counted.losses, "\n".join(counted.losses)
    assert survived
