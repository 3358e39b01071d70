"""`parsimony draw`: serves the page until Ctrl-C."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from parsimony.checkpoints import LAST
from parsimony.errors import InputError


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="parsimony draw",
        description="A page to draw a digit on and watch the network that a run trained answer, with its feature\n"
        "maps. It is served to this machine alone and asks for nothing from elsewhere; Ctrl-C ends it.",
        epilog="example:\n  parsimony draw runs/mnist_sep/TIME",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a run on mnist or digits")
    parser.add_argument("--port", type=int, default=0, metavar="N", help="default: one that is free")
    parser.add_argument("--checkpoint", default=LAST, metavar="NAME", help=f"in RUN/checkpoints; default: {LAST}")
    typed = parser.parse_args(arguments)
    if not 0 <= typed.port < 2**16:
        raise InputError(f"--port takes 0 to 65535, not {typed.port}.")

    import torch

    from parsimony.draw.answer import Artist
    from parsimony.draw.server import Server
    from parsimony.trained import load

    torch.set_num_threads(1)  # for one small picture more of them only wait for one another
    artist = Artist(load(typed.run, typed.checkpoint))
    try:
        server = Server(artist, typed.port)
    except OSError as error:
        raise InputError(f"Cannot listen on port {typed.port} ({error.strerror}): take another --port.") from error
    with server:
        print(f"draw a digit at {server.address} (Ctrl-C ends this)", flush=True)
        server.serve_forever()
