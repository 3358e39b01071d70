"""`parsimony COMMAND ...`: what works on the folders of finished runs. `python train.py` makes them."""

import argparse
import sys
from importlib import import_module

from parsimony.config import one_sentence_errors

# Command: its module, whose main(arguments) parses the rest, so that only what is asked for is imported; what it does.
COMMANDS: dict[str, tuple[str, str]] = {
    "rerun": ("parsimony.rerun", "a run once more, from its own config, and whether its bits are the same"),
    "report": ("parsimony.report.command", "tables, pictures and a page of runs, from the files of any program"),
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
    with one_sentence_errors():
        import_module(COMMANDS[command][0]).main(sys.argv[2:])


if __name__ == "__main__":
    main()
