"""`parsimony export`: a trained network as a file that other programs run."""

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from parsimony.errors import InputError
from parsimony.use import arguments as shared

EXAMPLES = """\
  parsimony export RUN                          ONNX: uint8 pictures in, probabilities out
  parsimony export RUN --int8                   and one quantised to 8 bits
  parsimony export RUN --format safetensors     the weights alone
"""
# Format: the ending of its file, and the packages that it needs besides torch.
FORMATS = {
    "onnx": (".onnx", ("onnx", "onnxscript", "onnxruntime")),
    "torch": (".pt2", ()),
    "safetensors": (".safetensors", ("safetensors",)),
}


def main(arguments: Sequence[str]) -> None:
    parser = shared.parser(
        "export",
        "A trained network as a file. onnx and torch take uint8 pictures (n, height, width, channels), any n, and\n"
        "give probabilities (n, classes): the preprocessing is inside. safetensors holds the weights alone. Each file\n"
        "is read back before it is kept and has to answer as the network does; of 8 bits, with probabilities.",
        EXAMPLES,
    )
    parser.add_argument("--format", choices=FORMATS, default="onnx", help="default: onnx")
    parser.add_argument(
        "--int8",
        action="store_true",
        help="with onnx: a second file, quantised by means of training images; accuracy and size of both",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: RUN/export/NAME with the format's ending")
    shared.add_data_root(parser)
    typed = parser.parse_args(arguments)
    ending, packages = FORMATS[typed.format]
    if typed.int8 and typed.format != "onnx":
        raise InputError(f"--int8 quantises ONNX files: leave out --format {typed.format}.")
    if missing := [package for package in packages if find_spec(package) is None]:
        raise InputError(f"--format {typed.format} needs {' and '.join(missing)}: pip install -e '.[export]'")
    trained = shared.trained(typed)
    print(f"{trained.name}, {trained.weights}", file=sys.stderr)
    name = shared.short_name(trained.name) + ("-best" if typed.best else "")
    path = typed.out or typed.run / "export" / f"{name}{ending}"
    shared.not_a_folder(path)
    path.parent.mkdir(parents=True, exist_ok=True)

    if typed.format == "onnx":
        from parsimony.use.onnx_format import export, export_with_int8

        lines = export_with_int8(trained, path) if typed.int8 else [export(trained, path)]
    elif typed.format == "torch":
        from parsimony.use.torch_formats import export_program

        lines = [export_program(trained, path)]
    else:
        from parsimony.use.torch_formats import export_weights

        lines = [export_weights(trained, path)]
    print("\n".join(lines))
