"""`parsimony draw`: serves the page until Ctrl-C."""

from collections.abc import Sequence

from parsimony.errors import InputError
from parsimony.interrupts import end_at_once
from parsimony.use.arguments import parser, trained

DESCRIPTION = """A page to draw a digit on and watch the network that a run trained answer, with its feature maps. It is
served to this machine alone and asks for nothing from elsewhere; Ctrl-C ends it."""
EXAMPLES = """  parsimony draw runs/mnist_sep/TIME"""


def main(arguments: Sequence[str]) -> None:
    made = parser("draw", DESCRIPTION, EXAMPLES)
    made.add_argument("--port", type=int, default=0, metavar="N", help="default: one that is free")
    typed = made.parse_args(arguments)
    if not 0 <= typed.port < 2**16:
        raise InputError(f"--port takes 0 to 65535, not {typed.port}.")

    import torch

    from parsimony.draw.answer import Artist
    from parsimony.draw.server import Server

    torch.set_num_threads(1)  # for one small picture more of them only wait for one another
    artist = Artist(trained(typed))
    try:
        server = Server(artist, typed.port)
    except OSError as error:
        raise InputError(f"Cannot listen on port {typed.port} ({error.strerror}): take another --port.") from error
    end_at_once()  # an exception amid taking a connection would break that one off with an error
    with server:
        print(f"draw a digit at {server.address} (Ctrl-C ends this)", flush=True)
        server.serve_forever()
