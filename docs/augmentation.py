"""Makes the pictures of docs/augmentation.md: `python docs/augmentation.py`, in the repository's root.

Takes data/cifar-10-batches-bin where it is there, else downloads CIFAR-10.
"""

import argparse
from pathlib import Path

import torch
from hydra.utils import instantiate
from matplotlib.image import imsave
from torch import Tensor

from parsimony.config import composed
from parsimony.data.augment import Augment, to_float
from parsimony.data.sources import Digits

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
DRAWS = 7
ZOOM, GAP = 3, 6  # screen pixels for a pixel, and between images

DIGIT, PHOTOGRAPH = 17, 82  # places in the training sets: a 2 and a horse, neither its own mirror image
ON_DIGITS = {
    "rotation": {"rotation": 30},
    "shift": {"shift": 0.15},
    "scale": {"scale": 0.3},
    "shear": {"shear": 30},
    "digits": {"rotation": 10, "shift": 0.1, "scale": 0.1},
}
ON_PHOTOGRAPHS = {
    "flip-random": {"flip": "random"},
    "flip-alternating": {"flip": "alternating"},
    "crop": {"crop_padding": 4},
    "cutout": {"cutout": 8},
    "brightness": {"brightness": 0.3},
    "contrast": {"contrast": 0.5},
}


def row(image: Tensor, settings: dict) -> Tensor:
    """The image (c, h, w) and what `settings` make of it in epochs 0, 1, 2, ...: (height, width, 3) in 0..1."""
    augment = Augment(**settings)
    torch.manual_seed(0)
    versions = [to_float(image)] + [augment(image[None], torch.tensor([0]), epoch)[0] for epoch in range(DRAWS)]
    big = [version.expand(3, -1, -1).repeat_interleave(ZOOM, 1).repeat_interleave(ZOOM, 2) for version in versions]
    white = torch.ones(3, big[0].shape[1], GAP)
    wide_gap = torch.ones(3, big[0].shape[1], 3 * GAP)  # after the original
    parts = [big[0], wide_gap]
    for version in big[1:]:
        parts += [version, white]
    return torch.cat(parts[:-1], dim=2).permute(1, 2, 0)


def main() -> None:
    cifar10 = instantiate(composed(["data=cifar10", f"data.root={ROOT / 'data'}"]).data.source)
    cifar10.download()
    pictures = [(Digits().load().train.images[DIGIT], ON_DIGITS)]
    pictures += [(cifar10.load().train.images[PHOTOGRAPH], ON_PHOTOGRAPHS)]
    IMAGES.mkdir(exist_ok=True)
    for image, augmentations in pictures:
        for name, settings in augmentations.items():
            path = IMAGES / f"augment-{name}.png"
            imsave(path, row(image, settings).numpy())
            print(path.relative_to(ROOT), settings)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    main()
