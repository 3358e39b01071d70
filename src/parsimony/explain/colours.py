"""From numbers to the pixels that show them: (h, w, 3) uint8, or (h, w, 4) where some are transparent."""

import numpy as np
from torch import Tensor

# One scale for weights and maps: black is zero, orange above, blue below. Okabe and Ito's colours in the middle.
PLACES = (-1.0, -0.45, 0.0, 0.45, 1.0)
STOPS = np.array([[0xCF, 0xEA, 0xFF], [0x00, 0x72, 0xB2], [0x0C, 0x0C, 0x10], [0xD5, 0x5E, 0x00], [0xFF, 0xF1, 0xD0]])


def signed(values: Tensor, scale: float | None = None) -> np.ndarray:
    """Of values (h, w); `scale` is the value at the ends of the colours, by default the largest. NaN is transparent."""
    numbers = values.detach().double().numpy()
    scale = scale or largest(values)
    colours = [np.interp(np.nan_to_num(numbers) / scale, PLACES, STOPS[:, channel]) for channel in range(3)]
    if np.isnan(numbers).any():
        colours.append(255.0 * ~np.isnan(numbers))
    return np.stack(colours, -1).round().astype(np.uint8)


def picture(image: Tensor) -> np.ndarray:
    """Of an image (c, h, w), uint8 or in [0, 1]: one channel is grey, three are red, green and blue."""
    pixels = image if not image.is_floating_point() else (image * 255).round().byte()
    return pixels.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()


def colour_kernel(weights: Tensor, scale: float) -> np.ndarray:
    """Of a kernel (3, h, w) on red, green and blue: grey is zero, so that it looks like what it answers to."""
    return picture((0.5 + weights.detach() / (2 * scale)).clamp(0, 1))


def heat(image: Tensor, mass: Tensor) -> np.ndarray:
    """The image (c, h, w), darkened, and over it `mass` (h, w), not negative, in orange."""
    over = signed((mass / mass.max().clamp(min=1e-30)).sqrt(), 1.0)  # the root: what is faint is there as well
    return np.maximum(0.35 * picture(image), over).astype(np.uint8)


def sheet(weights: Tensor) -> Tensor:
    """Kernels (rows, columns, h, w) side by side, NaN between them."""
    rows, columns, height, width = weights.shape
    spread = weights.new_full((rows, height + 1, columns, width + 1), float("nan"))
    spread[:, :height, :, :width] = weights.permute(0, 2, 1, 3)
    return spread.reshape(rows * (height + 1), columns * (width + 1))[:-1, :-1]


def largest(values: Tensor) -> float:
    """The largest absolute value; 1 where there is none."""
    return float(values.detach().abs().nan_to_num().max()) or 1.0
