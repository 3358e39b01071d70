"""`parsimony COMMAND ...`: what works on the folders of finished runs. `python train.py` makes them."""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from parsimony.config import CONF
from parsimony.errors import InputError
from parsimony.sentences import one_sentence_errors

# Command: its module, whose main(arguments) parses the rest, so that only what is asked for is imported; what it does.
COMMANDS: dict[str, tuple[str, str]] = {
    "rerun": ("parsimony.rerun", "a run once more, from its own config, and whether its bits are the same"),
    "report": ("parsimony.report.command", "tables, pictures and a page of runs, from the files of any program"),
    "evaluate": ("parsimony.use.evaluate", "accuracy with its interval, each class, confusion, calibration, mistakes"),
    "predict": ("parsimony.use.predict", "what a trained network sees in pictures"),
    "export": ("parsimony.use.export", "a trained network as ONNX (int8 if wanted), torch or safetensors"),
    "summary": ("parsimony.use.summary", "the layer table of a network, or of two side by side"),
    "card": ("parsimony.use.card", "the model card of a run or of a published result"),
    "explain": ("parsimony.explain.command", "a page on what a trained network learned, shown on the network itself"),
    "draw": ("parsimony.draw.command", "a page to draw digits on and watch a trained network answer"),
}


def main() -> None:
    listing = "\n".join(f"  {name:<10} {text}" for name, (_, text) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="parsimony",
        description="Work on the folders of finished runs.",
        epilog=f"commands:\n{listing}\n\nparsimony COMMAND --help tells a command's options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND")
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        parser.parse_args()  # shows the help or the mistake, and ends here
    command = sys.argv[1]
    with one_sentence_errors(), no_complaint_when_unread():
        if not CONF.is_dir():
            raise InputError(
                "Parsimony was installed without its conf/. Install it from a clone, with pip install -e ."
            )
        import_module(COMMANDS[command][0]).main(sys.argv[2:])


@contextmanager
def no_complaint_when_unread() -> Iterator[None]:
    """`parsimony ... | head` ends as other tools do once nobody reads on: silently, with the exit code of SIGPIPE."""
    try:
        yield
        if sys.stdout:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the interpreter's own last flush
        sys.exit(141)


if __name__ == "__main__":
    main()
