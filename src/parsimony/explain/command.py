"""`parsimony explain`: a trained network explained on itself, as a page in its run's folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from parsimony.runs import replace_file
from parsimony.use.arguments import add_data_root, not_a_folder, parser, trained

if TYPE_CHECKING:
    from parsimony.trained import Trained

DESCRIPTION = """What convolution, kernels, epochs, 1x1 and 3x3 convolution, feature maps, activation and receptive
field are, shown on the network that a run trained: one HTML page that needs nothing beside it."""
EXAMPLES = """  parsimony explain runs/mnist_sep/TIME
  parsimony explain runs/mnist_sep/TIME --picture 3 --out three.html"""


def main(arguments: Sequence[str]) -> None:
    made = parser("explain", DESCRIPTION, EXAMPLES)
    which = "which test image, from 0; default: the first that is answered rightly"
    made.add_argument("--picture", type=int, metavar="N", help=which)
    made.add_argument("--out", type=Path, metavar="FILE", help="the page; default: explain.html in RUN")
    add_data_root(made)
    typed = made.parse_args(arguments)
    out = not_a_folder(typed.out or typed.run / "explain.html")
    explain(trained(typed), out, typed.picture)
    print(f"written: {out}")


def explain(network: "Trained", out: Path, picture: int | None = None) -> None:
    """Writes the page `out` on test image number `picture`. Raises InputError where there is no such image."""
    from parsimony.explain.page import page  # matplotlib and Lightning, which bad input need not wait for
    from parsimony.explain.sections import sections

    text = page(f"What {network.name} learned", sections(network, picture))
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, text)
