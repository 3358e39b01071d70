"""Picture files of any size, mode and format, brought to what a network takes."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps

from parsimony.errors import InputError

INVERT = ("auto", "always", "never")
LIGHT = 127.5  # of 0..255


def files(paths: Iterable[Path]) -> Iterator[Path]:
    """The paths, and for a folder the pictures in it and below it, in order: files with an ending that Pillow knows.

    Raises InputError for a folder without any.
    """
    for path in paths:
        if not os.path.isdir(path):  # Path.is_dir raises for a name that is too long
            yield path
            continue
        endings = Image.registered_extensions()
        below = (file.relative_to(path) for file in path.rglob("*") if file.suffix.lower() in endings)
        found = sorted(file for file in below if not any(part.startswith(".") for part in file.parts))
        if not found:
            raise InputError(f"There is no picture in {path}.")
        yield from (path / file for file in found)


def read(path: Path, shape: tuple[int, int, int], invert: str = "auto") -> tuple[np.ndarray, bool]:
    """The picture as uint8 (c, h, w) of `shape`, and whether it was inverted, as `invert` of INVERT says.

    Of several frames the first; turned as its EXIF data say; transparent parts white, or black behind light ink.
    Grey pictures (c is 1) are padded to the network's proportions with the colour of their border, and inverted under
    "auto" where that is light: data sets of digits are light on dark. Colour pictures are cropped about their centre.
    Raises InputError, which names the file and the reason.
    """
    channels, height, width = shape
    decoded = _decoded(path, "L" if channels == 1 else "RGB", (4 * width, 4 * height))
    try:
        image = _opaque(_in_eight_bits(decoded))
        if channels == 3:
            fitted = ImageOps.fit(image.convert("RGB"), (width, height), Image.Resampling.BILINEAR)
            return np.asarray(fitted).transpose(2, 0, 1), False
        grey = image.convert("L")
        border = _border(grey)
        pixels = np.asarray(_padded(grey, (width, height), border))[None]
    except (InputError, OSError, ValueError) as error:
        raise InputError(f"{path}: {_reason(error)}") from error
    inverted = invert == "always" or (invert == "auto" and border > LIGHT)
    return (255 - pixels if inverted else pixels), inverted


def _decoded(path: Path, mode: str, size: tuple[int, int]) -> Image.Image:
    """Upright. A JPEG is decoded in `mode` and no larger than it must be to hold `size`."""
    if not os.path.isfile(path):
        raise InputError(f"{path}: it is no file" if os.path.exists(path) else f"{path}: there is no such file")
    try:
        with Image.open(path) as image:
            image.draft(mode, size)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            if image.mode == "LAB":  # which convert() knows no way out of
                lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
                image = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")  # type: ignore[assignment]
            return image
    except Image.UnidentifiedImageError:
        raise InputError(f"{path}: it is no picture") from None
    except Exception as error:  # a damaged file can raise any
        raise InputError(f"{path}: {_reason(error)}") from error


def _in_eight_bits(image: Image.Image) -> Image.Image:
    """Of grey in 16 or 32 bits its scaled values, as "L" or "LA": Pillow would cut off what is above 255."""
    if image.mode == "F":
        values = np.asarray(image, np.float64)
        if not np.isfinite(values).all():
            raise InputError("it has pixels that are no numbers")
        scaled = values * (255 if values.max() <= 1 else 1)
    elif image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image, np.float64)
        scaled = values / (257 if image.mode != "I" or values.max() > 255 else 1)
    else:
        return image
    grey = Image.fromarray(scaled.clip(0, 255).round().astype(np.uint8))
    if isinstance(transparent := image.info.get("transparency"), int):  # the one value that a PNG says is
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey


def _opaque(image: Image.Image) -> Image.Image:
    """Without transparency."""
    if not image.has_transparency_data:
        return image
    with_alpha = image.convert("RGBA")
    alpha = np.asarray(with_alpha.getchannel("A"), np.float64)
    ink = np.average(np.asarray(with_alpha.convert("L")), weights=alpha) if alpha.any() else 0.0
    background = Image.new("RGBA", image.size, "black" if ink > LIGHT else "white")
    return Image.alpha_composite(background, with_alpha).convert("RGB")


def _border(grey: Image.Image) -> int:
    """The median of the outermost pixels."""
    pixels = np.asarray(grey)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])
    return int(np.partition(edge, len(edge) // 2)[len(edge) // 2])


def _padded(grey: Image.Image, size: tuple[int, int], border: int) -> Image.Image:
    if grey.size == size:
        return grey
    return ImageOps.pad(grey, size, Image.Resampling.BILINEAR, color=border)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
