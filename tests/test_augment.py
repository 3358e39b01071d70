import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor

from parsimony.data.augment import (
    Augment,
    affine,
    affine_matrices,
    alternating_mask,
    crop,
    cutout,
    flip,
    jitter,
    to_float,
)
from parsimony.errors import InputError

CONF = Path(__file__).parents[1] / "conf"
CONFIGS = sorted(path.stem for path in (CONF / "augment").glob("*.yaml"))
EVERYTHING = {
    "rotation": 10,
    "shift": 0.1,
    "scale": 0.1,
    "shear": 5,
    "flip": "alternating",
    "crop_padding": 2,
    "cutout": 8,
    "brightness": 0.2,
    "contrast": 0.2,
}
BAD = {
    "rotation": [-1, 181, math.nan, "ten", True, None],
    "shift": [1.1],
    "scale": [1, -0.1],
    "shear": [90],
    "crop_padding": [-1, 1.5],
    "cutout": [-8, True],
    "brightness": [1.5],
    "contrast": [math.inf],
    "flip": [None, "vertical"],
}


def pictures(n: int = 16, channels: int = 3, height: int = 32, width: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, height, width), dtype=torch.uint8, generator=generator)


def run(augment: Augment, images: Tensor, epoch: int = 0, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return augment(images, torch.arange(len(images)), epoch)


def warp(images: Tensor, angle: float = 0, right: float = 0, down: float = 0, scale: float = 1, shear: float = 0):
    """`affine` with one and the same map for all images."""
    n, _, height, width = images.shape
    angles, scales, shears = (torch.full((n,), float(value)) for value in (angle, scale, shear))
    shift = torch.tensor([[right], [down]]).float().expand(2, n)
    return affine(images, affine_matrices(angles, shift, scales, shears, height, width))


def test_nothing_on_is_division_by_255() -> None:
    every_byte = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(run(Augment(), every_byte), every_byte / 255)
    assert torch.equal(to_float(every_byte), every_byte / 255)
    images = pictures()
    assert torch.equal(run(Augment(), images), images / 255)


def test_the_given_batch_is_left_alone() -> None:
    images = pictures()
    before = images.clone()
    run(Augment(**EVERYTHING), images)
    assert torch.equal(images, before)


@pytest.mark.parametrize("settings", [{}, {"flip": "random"}, {"crop_padding": 4}, {"rotation": 5}, EVERYTHING])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_dtype_shape_range_and_memory_format(settings: dict, layout: torch.memory_format) -> None:
    images = pictures(height=24)
    out = run(Augment(**settings), images.contiguous(memory_format=layout))
    assert out.dtype == torch.float32
    assert out.shape == images.shape
    assert out.is_contiguous(memory_format=layout)
    assert out.min() >= 0
    assert out.max() <= 1
    torch.testing.assert_close(out, run(Augment(**settings), images))


def test_same_seed_same_result_other_seed_other_result() -> None:
    augment, images = Augment(**EVERYTHING), pictures()
    assert torch.equal(run(augment, images, seed=1), run(augment, images, seed=1))
    assert not torch.equal(run(augment, images, seed=1), run(augment, images, seed=2))


def test_nothing_is_read_back_from_the_device() -> None:
    """Tensors on "meta" have shapes but no values: whatever a GPU would have to be waited for raises there."""
    for mode in ("random", "alternating"):
        augment = Augment(**{**EVERYTHING, "flip": mode})
        images = pictures().to("meta")
        out = augment(images, torch.arange(len(images), device="meta"), 3)
        assert (out.shape, out.dtype, out.device) == (images.shape, torch.float32, images.device)


def test_random_flip_mirrors_half_the_images() -> None:
    images = pictures(2000, 1, 4, 5)
    out = run(Augment(flip="random"), images)
    same = (out == to_float(images)).flatten(1).all(1)
    mirrored = (out == to_float(images).flip(-1)).flatten(1).all(1)
    assert bool((same ^ mirrored).all())
    assert 900 < int(mirrored.sum()) < 1100  # 4.5 sd


def test_alternating_flip_shows_each_image_both_ways_in_two_epochs() -> None:
    images = pictures(1000, 1, 4, 5)
    epochs = [run(Augment(flip="alternating"), images, epoch, seed=epoch) for epoch in range(4)]
    first = (epochs[0] == to_float(images).flip(-1)).flatten(1).all(1)
    assert torch.equal(epochs[0], to_float(flip(images, first)))
    assert torch.equal(epochs[1], to_float(flip(images, ~first)))
    assert torch.equal(epochs[2], epochs[0])
    assert torch.equal(epochs[3], epochs[1])


def test_alternating_flip_depends_on_the_index_alone_and_halves_the_data_set() -> None:
    mask = alternating_mask(torch.arange(50_000), 0)
    assert 24_500 < int(mask.sum()) < 25_500  # 4.5 sd
    for distance in (1, 2, 3, 4, 8, 10, 16, 64, 1024):  # neighbours go their own ways
        assert 0.48 < (mask[distance:] == mask[:-distance]).float().mean() < 0.52, distance
    order = torch.randperm(50_000)
    assert torch.equal(alternating_mask(order, 0), mask[order])


def test_a_crop_is_a_window_of_the_padded_image() -> None:
    images, padding = pictures(9 * 9, 2, 7, 6), 4
    offsets = torch.stack(torch.meshgrid(torch.arange(9), torch.arange(9), indexing="ij")).flatten(1)
    padded = F.pad(images.float(), (padding,) * 4, mode="reflect")
    for out, image, (top, left) in zip(crop(images, offsets, padding), padded, offsets.T.tolist(), strict=True):
        assert torch.equal(out.float(), image[:, top : top + 7, left : left + 6])


def test_random_crops_take_every_window_about_equally_often() -> None:
    image = pictures(1, 1, 5, 5)
    out = run(Augment(crop_padding=1), image.expand(9000, -1, -1, -1))
    windows = F.pad(to_float(image), (1,) * 4, mode="reflect").unfold(2, 5, 1).unfold(3, 5, 1).reshape(9, 1, 5, 5)
    counts = (out[:, None] == windows).flatten(2).all(2).sum(0)
    assert int(counts.sum()) == 9000
    assert counts.min() > 850  # 5 sd
    assert counts.max() < 1150


@pytest.mark.parametrize("side", [1, 4, 5])
def test_cutout_blacks_out_one_square_clipped_at_the_borders(side: int) -> None:
    height, width = 9, 8
    centres = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")).flatten(1)
    images = torch.full((height * width, 2, height, width), 7, dtype=torch.uint8)
    for out, (row, column) in zip(cutout(images, centres, side), centres.T.tolist(), strict=True):
        expected = torch.full((2, height, width), 7, dtype=torch.uint8)
        top, left = row - side // 2, column - side // 2
        expected[:, max(top, 0) : top + side, max(left, 0) : left + side] = 0
        assert torch.equal(out, expected)


def test_random_cutouts_centre_on_every_pixel() -> None:
    white = torch.full((3000, 3, 8, 8), 255, dtype=torch.uint8)
    out = run(Augment(cutout=1), white)
    counts = (out == 0).all(1).sum(0)
    assert int(counts.sum()) == 3000
    assert counts.min() > 10  # 47 expected
    area = (run(Augment(cutout=4), white) == 0).all(1).flatten(1).sum(1)
    assert area.max() == 16
    assert area.min() == 4  # a corner: 2 x 2 of the square are left


def test_affine_is_the_identity_at_zero() -> None:
    images = to_float(pictures(4, 3, 28, 20))
    torch.testing.assert_close(warp(images), images, atol=1e-5, rtol=0)


def test_quarter_turns_are_rot90() -> None:
    images = to_float(pictures(4, 3, 28, 28))
    for turns in (-2, -1, 1, 2):
        out = warp(images, turns * math.pi / 2)
        torch.testing.assert_close(out, torch.rot90(images, turns, (2, 3)), atol=1e-4, rtol=0)


def test_oblong_images_keep_their_angles() -> None:
    images = to_float(pictures(4, 3, 28, 20))
    square = warp(F.pad(images, (4, 4, 0, 0)), math.radians(30), shear=0.3)
    torch.testing.assert_close(warp(images, math.radians(30), shear=0.3), square[..., 4:-4], atol=1e-4, rtol=0)


def test_shifts_by_whole_pixels_move_the_pixels() -> None:
    images = to_float(pictures(4, 3, 10, 20))
    expected = torch.zeros_like(images)
    expected[:, :, 2:, :-3] = images[:, :, :-2, 3:]
    torch.testing.assert_close(warp(images, right=-3 / 20, down=2 / 10), expected, atol=1e-4, rtol=0)


def test_scale_2_is_bilinear_interpolation() -> None:
    images = to_float(pictures(4, 3, 28, 28))
    doubled = F.interpolate(images, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(warp(images, scale=2), doubled[:, :, 14:-14, 14:-14], atol=1e-4, rtol=0)


def test_a_shear_of_45_degrees_moves_each_row_by_its_height() -> None:
    images = to_float(pictures(1, 1, 5, 5))
    out = warp(images, shear=math.pi / 4)
    for row in range(5):
        expected = F.pad(images[..., row, :], (5, 5))[..., 5 - (row - 2) : 10 - (row - 2)]
        torch.testing.assert_close(out[..., row, :], expected, atol=1e-4, rtol=0)


def test_rotation_comes_after_scale_and_before_shift() -> None:
    images = to_float(pictures(2, 1, 12, 12))
    turned = torch.rot90(F.interpolate(images, scale_factor=2, mode="bilinear")[:, :, 6:-6, 6:-6], 1, (2, 3))
    out = warp(images, angle=math.pi / 2, right=3 / 12, scale=2)
    torch.testing.assert_close(out[..., 3:], turned[..., :-3], atol=1e-4, rtol=0)


def test_random_affine_stays_within_its_limits_and_reaches_them() -> None:
    """The places that dots go to tell the shift, the angle, the scale and the shear."""
    n, side = 4000, 41
    y, x = torch.meshgrid(*[torch.arange(side) - 20.0] * 2, indexing="ij")

    def blob(right: float, down: float) -> Tensor:  # a soft dot, so that its centre of mass survives resampling
        dot = torch.exp(-((x - right) ** 2 + (y - down) ** 2) / 8)
        return (255 * dot).byte().view(1, 1, side, side).expand(n, -1, -1, -1)

    def centres(augment: Augment, right: float, down: float = 0) -> tuple[Tensor, Tensor]:
        out = run(augment, blob(right, down))[:, 0]
        mass = out.sum((1, 2))
        return (out * x).sum((1, 2)) / mass, (out * y).sum((1, 2)) / mass

    right, down = centres(Augment(shift=0.1), 0)
    for moved in (right, down):
        assert moved.abs().max() == pytest.approx(4.1, abs=0.05)
        assert moved.mean() == pytest.approx(0, abs=5 * 4.1 / math.sqrt(3 * n))
        assert moved.std() == pytest.approx(4.1 / math.sqrt(3), rel=0.05)
    assert torch.corrcoef(torch.stack([right, down]))[0, 1].abs() < 0.08

    right, down = centres(Augment(rotation=30), 10)
    angle = torch.rad2deg(torch.atan2(-down, right))
    assert angle.max() == pytest.approx(30, abs=0.5)
    assert angle.min() == pytest.approx(-30, abs=0.5)
    assert angle.std() == pytest.approx(30 / math.sqrt(3), rel=0.05)

    right, down = centres(Augment(scale=0.2), 10)
    assert right.max() == pytest.approx(12, abs=0.1)
    assert right.min() == pytest.approx(8, abs=0.1)
    assert down.abs().max() < 0.05

    right, down = centres(Augment(shear=30), 0, down=-10)
    shear = torch.rad2deg(torch.atan(right / -down))
    assert shear.max() == pytest.approx(30, abs=0.5)
    assert shear.min() == pytest.approx(-30, abs=0.5)
    assert shear.std() == pytest.approx(30 / math.sqrt(3), rel=0.05)
    assert (down + 10).abs().max() < 0.05


def test_brightness_adds_and_contrast_stretches_about_the_mean() -> None:
    images = torch.tensor([0.2, 0.4, 0.6, 0.8]).view(1, 1, 2, 2).repeat(3, 1, 1, 1)
    out = jitter(images, brightness=torch.tensor([0.1, 0.0, 0.5]), contrast=torch.tensor([1.0, 0.5, 1.0]))
    expected = torch.tensor([[0.3, 0.5, 0.7, 0.9], [0.35, 0.45, 0.55, 0.65], [0.7, 0.9, 1.0, 1.0]])
    torch.testing.assert_close(out.flatten(1), expected)


def test_random_brightness_and_contrast_stay_within_their_limits() -> None:
    grey = torch.full((2000, 1, 2, 2), 127, dtype=torch.uint8)
    added = run(Augment(brightness=0.2), grey)[:, 0, 0, 0] - 127 / 255
    assert added.max() == pytest.approx(0.2, abs=0.005)
    assert added.min() == pytest.approx(-0.2, abs=0.005)
    halves = torch.tensor([100, 155], dtype=torch.uint8).repeat(2000, 1, 2, 1)
    stretched = run(Augment(contrast=0.3), halves)
    factor = (stretched[:, 0, 0, 1] - stretched[:, 0, 0, 0]) * 255 / 55
    assert factor.max() == pytest.approx(1.3, abs=0.005)
    assert factor.min() == pytest.approx(0.7, abs=0.005)
    torch.testing.assert_close(stretched.mean((1, 2, 3)), torch.full((2000,), 127.5 / 255))


def test_cutout_comes_last() -> None:
    light = torch.full((500, 3, 8, 8), 200, dtype=torch.uint8)
    out = run(Augment(cutout=3, brightness=0.1, contrast=0.1, crop_padding=3), light)
    black = (out == 0).all(1)
    assert bool(((out > 0.6).all(1) ^ black).all())
    area = black.flatten(1).sum(1)
    assert area.min() == 4
    assert area.max() == 9


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in BAD.items() for value in values])
def test_bad_values_are_named(key: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"augment\.{key} must be .*not {value!r}"):
        Augment(**{key: value})


def test_a_mistyped_flip_gets_a_hint() -> None:
    with pytest.raises(InputError, match="Did you mean 'random'"):
        Augment(flip="randon")


@pytest.mark.parametrize("settings", [{"crop_padding": 28}, {"cutout": 29}])
def test_too_much_for_the_images_is_told(settings: dict) -> None:
    with pytest.raises(InputError, match="28x30"):
        run(Augment(**settings), pictures(2, 1, 28, 30))
    with pytest.raises(InputError, match="28x30"):
        Augment(**settings).check((1, 28, 30))
    Augment(**settings).check((1, 30, 30))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("shape", [(8, 1, 28, 28), (8, 3, 32, 32)])
def test_every_config_runs(name: str, shape: tuple[int, ...]) -> None:
    with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
        config = compose(f"augment/{name}").augment
        off = compose("augment/none").augment
    augment = instantiate(config)
    images = pictures(*shape)
    out = run(augment, images)
    assert out.shape == images.shape
    assert torch.equal(out, images / 255) == (name == "none")
    assert set(config) == set(off)  # every key is there to be overridden without a "+"
    assert set(off) == {"_target_", *EVERYTHING}
    assert (CONF / "augment" / f"{name}.yaml").read_text().startswith("# ")
