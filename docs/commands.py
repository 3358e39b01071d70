"""The commands of README.md and docs/*.md: the tests take every one from here.

`python docs/commands.py`, in the repository's root, writes the list of those for other hardware into docs/README.md.
"""

import argparse
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from parsimony.published.pages import filled
from parsimony.runs import PROJECT, replace_file

INDEX = PROJECT / "docs" / "README.md"
PROGRAMS = ("python ", "parsimony ", "make ", "tensorboard ", "pip ")  # with which a command within a sentence begins
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`]+)`")
# What a command needs that the tests do not have, and the words in it that say so
HARDWARE = {
    "needs Slurm": re.compile(r"submitit_slurm|\bsbatch\b|\bsrun\b"),
    "needs several GPUs": re.compile(r"trainer=ddp\b|trainer\.num_nodes"),
    "needs a GPU": re.compile(r"trainer=gpu|trainer\.accelerator=(gpu|cuda)|bench.*--gpu"),
    "needs an Apple GPU": re.compile(r"trainer\.accelerator=mps"),
}


@dataclass(frozen=True)
class Command:
    """As typed, on one line, and what the page says of it: its comment, or the paragraph that it stands in."""

    text: str
    said: str
    page: str

    @property
    def hardware(self) -> str | None:
        """What it needs that the tests do not have."""
        return next((needs for needs, words in HARDWARE.items() if words.search(self.text)), None)

    def words(self) -> list[list[str]]:
        """Those of each program that it starts."""
        programs: list[list[str]] = [[]]
        for word in shlex.split(self.text):
            if word in ("&&", "|", ";"):
                programs.append([])
            elif programs[-1] or not re.fullmatch(r"[A-Z_]+=.*", word):  # OMP_NUM_THREADS=1 in front of it
                programs[-1].append(word)
        return programs


def commands() -> list[Command]:
    """Of every page, each once a page: of its bash and console blocks, and what its sentences set as code."""
    pages = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
    found = [command for page in pages for command in _of(page)]
    return list({(command.page, command.text): command for command in found}.values())


def _of(page: Path) -> Iterator[Command]:
    text, name = page.read_text(), str(page.relative_to(PROJECT))
    for language, block in BLOCK.findall(text):
        said = ""
        for line in block.replace("\\\n", " ").splitlines():
            if language == "console" and line.startswith("$ "):  # what follows is its output
                line = line.removeprefix("$ ")
            elif language != "bash":
                continue
            typed, _, comment = f"{line} ".partition("# ")
            if typed.strip():
                yield Command(" ".join(typed.split()), said + comment, name)
            said = comment if not typed.strip() else ""  # a line of its own is about the next
    for paragraph in BLOCK.sub("", text).split("\n\n"):
        for code in CODE.findall(paragraph):
            if code.startswith(PROGRAMS) and "..." not in code:
                yield Command(" ".join(code.split()), paragraph, name)


def elsewhere() -> str:
    """A line a command that needs other hardware."""
    listed = [c for c in commands() if c.hardware and c.page != "docs/README.md"]  # which holds the list
    lines = [f"| `{c.text}` | {c.hardware} | [{c.page}]({_link(c.page)}) |" for c in listed]
    return "\n".join(["| command | | page |", "|---|---|---|", *lines])


def _link(page: str) -> str:
    return page.removeprefix("docs/") if page.startswith("docs/") else f"../{page}"


def index() -> str:
    """docs/README.md as it should read."""
    return filled(INDEX.read_text(), elsewhere())


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    replace_file(INDEX, index())
