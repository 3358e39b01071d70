"""Writes the outputs of docs/using.md: `python docs/using.py`, in the repository's root.

Every `$ parsimony ...` in it is run on the run in docs/example, a training of half a minute on the embedded digits:
`python train.py data=digits model=mnist_narrow engine.threads=1`.
"""

import argparse
import io
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from parsimony import cli
from parsimony.data.sources import Digits

DOCS = Path(__file__).resolve().parent
PAGE, EXAMPLE = DOCS / "using.md", DOCS / "example"
BLOCK = re.compile(r"^```console\n\$ (.+)\n(?:(?!```).*\n)*```$", re.MULTILINE)


def commands(page: str) -> Iterator[str]:
    yield from BLOCK.findall(page)


def output(command: str) -> str:
    """What `command` shows on a terminal, run in this process."""
    shown = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    typed, sys.argv = sys.argv, shlex.split(command)
    try:
        with redirect_stdout(shown), redirect_stderr(shown):
            cli.main()
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=shown)
    finally:
        sys.argv = typed
    shown.seek(0)
    return "".join(line.rstrip() + "\n" for line in shown)


def filled(page: str) -> str:
    """`page` with the output of each command written anew. Runs them where runs/digits is a copy of the example."""
    return BLOCK.sub(lambda block: f"```console\n$ {block[1]}\n{output(block[1])}```", page)


def draw_pictures(folder: Path) -> None:
    """A test image as it is, one as a photograph of ink on paper would be, and a file that is no picture."""
    images = Digits().load().test.images
    folder.mkdir(exist_ok=True)
    Image.fromarray(images[7, 0].numpy()).save(folder / "a.png")
    ink = Image.fromarray(images[30, 0].numpy()).resize((200, 200))
    paper = Image.new("L", (220, 260), 235)
    paper.paste(ink.point(lambda value: round(235 - 0.8 * value)), (10, 30))
    paper.convert("RGB").save(folder / "ink.jpg")
    (folder / "notes.png").write_text("no picture\n")


def main() -> None:
    draw_pictures(EXAMPLE / "pictures")
    with TemporaryDirectory() as folder, chdir(folder):
        shutil.copytree(EXAMPLE, Path("runs", "digits"))
        shutil.copytree(EXAMPLE / "pictures", "pictures")
        text = filled(PAGE.read_text())
    PAGE.write_text(text)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
