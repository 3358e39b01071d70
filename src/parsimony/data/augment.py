"""Augmentation of a whole batch at once, on the device the batch is on.

The functions do one thing each and draw nothing; `Augment` draws. Nothing here reads a value back from the device,
so a GPU is never waited for.
"""

import math
from collections.abc import Sequence
from difflib import get_close_matches

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parsimony.errors import InputError
from parsimony.rules import is_number

FLIPS = ("none", "random", "alternating")


def to_float(images: Tensor) -> Tensor:
    """uint8 0..255 -> float32 0..1, all there is to do for evaluation. Floats pass through."""
    return images if images.is_floating_point() else images.float().div_(255)


def flip(images: Tensor, mask: Tensor) -> Tensor:
    """Mirror left and right those images (n, c, h, w) whose mask (n,) is true."""
    n = len(images)
    # Copying whole images is 3 times faster on a CPU than torch.where on bytes.
    source = torch.arange(n, device=images.device) + n * mask
    return torch.cat([images, images.flip(-1)]).index_select(0, source)


def alternating_mask(indices: Tensor, epoch: int) -> Tensor:
    """Which images to mirror: a fixed half of the data set in even epochs, the other half in odd ones.

    Two epochs in a row show every image once each way round, where random flips repeat half of them.
    From Jordan, "94% on CIFAR-10 in 3.29 seconds" (arXiv 2404.00498). Indices are int64, below 2**31.
    """
    bits = indices
    for _ in range(2):  # T. Mueller's 32-bit integer hash, so that neighbours do not go together
        bits = (((bits >> 16) ^ bits) * 0x45D9F3B) & 0xFFFFFFFF
    return (((bits >> 16) ^ bits) & 1) == epoch % 2


def affine_matrices(angle: Tensor, shift: Tensor, scale: Tensor, shear: Tensor, height: int, width: int) -> Tensor:
    """(n, 2, 3) matrices as `F.grid_sample` wants them: from output to input, in units of half a side.

    Each image is scaled (n,), sheared by `shear` (n,) radians along x, turned counter-clockwise by `angle` (n,)
    radians, all about its centre and in pixels, so that oblong images keep their angles; then moved by `shift`
    (2, n), fractions of the width (to the right) and the height (down).
    """
    cos, sin, slope = angle.cos(), angle.sin(), shear.tan()
    xx, xy = (cos - slope * sin) / scale, -(sin + slope * cos) / scale * (height / width)
    yx, yy = sin / scale * (width / height), cos / scale
    right, down = 2 * shift
    rows = [xx, xy, -(xx * right + xy * down), yx, yy, -(yx * right + yy * down)]
    return torch.stack(rows, dim=-1).view(-1, 2, 3)


def affine(images: Tensor, matrices: Tensor) -> Tensor:
    """Resample float images (n, c, h, w), bilinearly, with black around them."""
    height, width = images.shape[-2:]
    x = (torch.arange(width, device=images.device) * 2 + 1) / width - 1  # centres of pixels
    y = (torch.arange(height, device=images.device) * 2 + 1) / height - 1
    # F.affine_grid gives the same numbers by small matrix products: 10 times slower on a CPU, and in TF32 on a GPU
    # that is allowed it, where 10 bits of mantissa would blur the positions.
    columns = matrices[:, :, 0, None] * x
    rows = matrices[:, :, 1, None] * y + matrices[:, :, 2, None]
    grid = (columns[:, :, None] + rows[..., None]).permute(0, 2, 3, 1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def crop(images: Tensor, offsets: Tensor, padding: int) -> Tensor:
    """Pad images (n, c, h, w) by reflection, cut a window of the old size out of each.

    `offsets` (2, n), int64 in 0..2*padding, are the windows' top and left edges in the padded images.
    """
    n, channels, height, width = images.shape
    top, left = offsets[..., None] - padding
    rows = _reflect(torch.arange(height, device=images.device) + top, height)
    columns = _reflect(torch.arange(width, device=images.device) + left, width)
    pixels = (rows[:, :, None] * width + columns[:, None]).view(n, 1, -1).expand(-1, channels, -1)
    return images.flatten(2).gather(2, pixels).view(n, channels, height, width)


def _reflect(positions: Tensor, size: int) -> Tensor:
    """Positions mirrored at the first and the last pixel, which are not repeated: -1 -> 1, size -> size - 2."""
    positions = positions.abs()
    return torch.minimum(positions, 2 * (size - 1) - positions)


def jitter(images: Tensor, brightness: Tensor, contrast: Tensor) -> Tensor:
    """Per image (n,): stretch float images about their own mean by `contrast`, add `brightness`, clamp to 0..1."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    contrast, brightness = contrast.view(-1, 1, 1, 1), brightness.view(-1, 1, 1, 1)
    return torch.addcmul(mean * (1 - contrast) + brightness, images, contrast).clamp_(0, 1)


def cutout(images: Tensor, centres: Tensor, side: int) -> Tensor:
    """Black out a square of `side` pixels around `centres` (2, n), int64 rows and columns.

    Centres may be any pixel and squares are clipped at the borders, as in DeVries and Taylor (arXiv 1708.04552), so
    that fewer than side * side pixels may go. An even side reaches one pixel further up and left.
    """
    height, width = images.shape[-2:]
    top, left = centres[..., None] - side // 2
    y, x = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
    rows, columns = (y >= top) & (y < top + side), (x >= left) & (x < left + side)
    # On bytes a product is 3 times faster than masked_fill on a CPU.
    return images * ~(rows[:, :, None] & columns[:, None])[:, None]


class Augment(nn.Module):
    """Random changes to a batch of images, drawn anew for each image: flip, affine, crop, brightness and contrast,
    cutout, in this order. It draws from torch's global generator of the images' device, and augments in eval mode too:
    for evaluation use `to_float`.

    rotation: degrees, 0 to 180; shift: fraction of each side, 0 to 1; scale: s gives factors 1 - s to 1 + s, below 1;
    shear: degrees along x, below 90. All four are drawn uniformly from both sides of zero and resampled in one go.
    flip: "none", "random" or "alternating" (see `alternating_mask`).
    crop_padding: pixels of reflection on every side before a random crop, less than the image's sides.
    brightness: added to pixels of 0..1, and contrast: the change of a factor of 1, both 0 to 1 and of either sign.
    cutout: side in pixels of a black square, no more than the image's sides.
    Raises InputError for values outside these ranges.
    """

    def __init__(
        self,
        *,
        rotation: float = 0.0,
        shift: float = 0.0,
        scale: float = 0.0,
        shear: float = 0.0,
        flip: str = "none",
        crop_padding: int = 0,
        cutout: int = 0,
        brightness: float = 0.0,
        contrast: float = 0.0,
    ) -> None:
        super().__init__()
        self.rotation = _number("rotation", rotation, "from 0 to 180 degrees", 180)
        self.shift = _number("shift", shift, "from 0 to 1, a fraction of the image's side", 1)
        self.scale = _number("scale", scale, "from 0 to below 1, where 0.1 means factors of 0.9 to 1.1", 1, below=True)
        self.shear = _number("shear", shear, "from 0 to below 90 degrees", 90, below=True)
        self.flip = _flip(flip)
        self.crop_padding = _pixels("crop_padding", crop_padding)
        self.cutout = _pixels("cutout", cutout)
        self.brightness = _number("brightness", brightness, "from 0 to 1", 1)
        self.contrast = _number("contrast", contrast, "from 0 to 1", 1)

    def check(self, shape: Sequence[int]) -> None:
        """Raise InputError if images of this shape (..., h, w) are too small for the crop or the cutout."""
        height, width = shape[-2:]
        if self.crop_padding >= min(height, width):
            raise InputError(
                f"augment.crop_padding={self.crop_padding} is too much for images of {height}x{width}: "
                f"reflection has at most {min(height, width) - 1} pixels to give."
            )
        if self.cutout > min(height, width):
            raise InputError(
                f"augment.cutout={self.cutout} is larger than the images, {height}x{width}: "
                f"take at most {min(height, width)}, or 0 for none."
            )

    def forward(self, images: Tensor, indices: Tensor, epoch: int) -> Tensor:
        """uint8 (n, c, h, w) -> float32 in 0..1, same memory format.

        `indices` (n,), int64 on the images' device: the images' places in the data set, for alternating flips.
        """
        self.check(images.shape)
        n, _, height, width = images.shape
        device = images.device
        channels_last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
        layout = torch.channels_last if channels_last else torch.contiguous_format

        # Bytes for as long as possible: a quarter of the memory traffic.
        if self.flip == "random":
            images = flip(images, torch.rand(n, device=device) < 0.5)
        elif self.flip == "alternating":
            images = flip(images, alternating_mask(indices, epoch))
        if self.rotation or self.shift or self.scale or self.shear:
            angle, right, down, scale, shear = 2 * torch.rand(5, n, device=device) - 1
            matrices = affine_matrices(
                angle * math.radians(self.rotation),
                torch.stack([right, down]) * self.shift,
                1 + scale * self.scale,
                shear * math.radians(self.shear),
                height,
                width,
            )
            images = affine(to_float(images), matrices)
        if self.crop_padding:
            offsets = torch.randint(0, 2 * self.crop_padding + 1, (2, n), device=device)
            images = crop(images, offsets, self.crop_padding)
        if self.brightness or self.contrast:
            brightness, contrast = 2 * torch.rand(2, n, device=device) - 1
            images = jitter(to_float(images), brightness * self.brightness, 1 + contrast * self.contrast)
        if self.cutout:
            rows = torch.randint(0, height, (n,), device=device)
            columns = torch.randint(0, width, (n,), device=device)
            images = cutout(images, torch.stack([rows, columns]), self.cutout)
        return to_float(images.contiguous(memory_format=layout))


def _number(name: str, value: float, expected: str, limit: float, below: bool = False) -> float:
    if not is_number(value) or not 0 <= value <= limit or (below and value == limit):
        raise InputError(f"augment.{name} must be a number {expected}, not {value!r}.")
    return float(value)


def _pixels(name: str, value: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InputError(f"augment.{name} must be a whole number of pixels, 0 (off) or more, not {value!r}.")
    return value


def _flip(value: str) -> str:
    if value not in FLIPS:
        near = get_close_matches(str(value), FLIPS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InputError(f"augment.flip must be one of {', '.join(FLIPS)}, not {value!r}.{hint}")
    return value
