"""Pictures of every kind, brought to what a network takes."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image, ImageCms

from parsimony.data.sources import Digits
from parsimony.errors import InputError
from parsimony.use.picture_files import files, read

GREY, COLOUR = (1, 28, 28), (3, 32, 32)
IMAGES = Digits().load().test.images[:, 0].numpy()
DIGIT = IMAGES[0]


@pytest.fixture
def saved(tmp_path: Path):
    def saved(image: Image.Image, name: str = "picture.png", **options) -> Path:
        image.save(tmp_path / name, **options)
        return tmp_path / name

    return saved


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.gif", "a.pgm", "A.PNG", "no_ending"])
def test_a_picture_of_the_networks_own_shape_is_passed_on(name: str, saved) -> None:
    path = saved(Image.fromarray(DIGIT), name, **({} if "." in name else {"format": "PNG"}))
    pixels, inverted = read(path, GREY)
    assert (pixels[0] == DIGIT).all()
    assert pixels.dtype == np.uint8
    assert not inverted


YCBCR = pytest.param(
    "YCbCr",
    marks=pytest.mark.skipif(
        int(PIL.__version__.partition(".")[0]) < 13, reason="an older Pillow does not read the YCbCr that it writes"
    ),
)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "CMYK", YCBCR, "LAB", "I", "F"])
def test_every_mode_shows_the_same_digit(mode: str, saved) -> None:
    digit = Image.fromarray(DIGIT)
    if mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        image = ImageCms.profileToProfile(digit.convert("RGB"), srgb, lab, outputMode="LAB")
    else:
        image = digit.convert("RGB" if mode not in "IF" else "L").convert(mode)
    pixels, _ = read(saved(image, "a.tif"), GREY)
    assert np.abs(pixels[0].astype(int) - DIGIT).max() <= {"LAB": 3, "YCbCr": 1, "CMYK": 1}.get(mode, 0)


def test_palettes_and_bits(saved) -> None:
    palette = Image.fromarray(DIGIT).convert("P", palette=Image.Palette.ADAPTIVE)
    assert (read(saved(palette), GREY)[0] == DIGIT).all()
    bits = Image.fromarray(DIGIT > 127)
    assert bits.mode == "1"
    assert (read(saved(bits), GREY)[0] == (DIGIT > 127) * 255).all()


@pytest.mark.parametrize("shape", [GREY, (3, 28, 28)])
def test_sixteen_bits_are_scaled_not_cut_off(shape: tuple[int, int, int], saved) -> None:
    wide = Image.fromarray(DIGIT.astype(np.uint16) * 257)
    for name in ("a.png", "a.tif"):
        pixels, _ = read(saved(wide, name), shape)
        assert (pixels == DIGIT).all()


def test_sixteen_bits_of_which_one_value_is_transparent(saved) -> None:
    wide = DIGIT.astype(np.uint16) * 257
    pixels, _ = read(saved(Image.fromarray(wide), transparency=12345), GREY)
    assert (pixels[0] == DIGIT).all(), "no pixel has that value"
    bold = DIGIT > 127
    for ink, paper, inverted in ((60000, 1000, False), (9000, 50000, True)):
        drawn = Image.fromarray(np.where(bold, ink, paper).astype(np.uint16))
        pixels, was = read(saved(drawn, transparency=paper), GREY)
        assert was == inverted
        assert (pixels[0][~bold] == 0).all(), "black behind light ink, and white behind dark"
        level = round(ink / 257)
        assert (pixels[0][bold] == (255 - level if inverted else level)).all()


@pytest.mark.parametrize("shape", [GREY, (3, 28, 28)])
def test_floats_of_0_to_1_are_scaled(shape: tuple[int, int, int], saved) -> None:
    pixels, _ = read(saved(Image.fromarray(DIGIT.astype(np.float32) / 255), "a.tif"), shape)
    assert (pixels == DIGIT).all()
    path = saved(Image.fromarray(np.full((28, 28), np.nan, np.float32)), "nan.tif")
    with pytest.raises(InputError, match=r"nan\.tif: it has pixels that are no numbers"):
        read(path, shape)


def test_dark_on_light_is_inverted(saved) -> None:
    path = saved(Image.fromarray(255 - DIGIT))
    assert (read(path, GREY)[0] == DIGIT).all()
    assert read(path, GREY)[1]
    assert (read(path, GREY, "never")[0][0] == 255 - DIGIT).all()
    light = saved(Image.fromarray(DIGIT), "light.png")
    assert (read(light, GREY, "always")[0][0] == 255 - DIGIT).all()
    assert not read(saved(Image.new("RGB", (32, 32), "white"), "white.png"), COLOUR)[1]


def test_no_image_of_the_data_set_is_inverted(tmp_path: Path) -> None:
    for i, image in enumerate(IMAGES[:100]):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
        Image.fromarray(255 - image).save(tmp_path / f"{i}-dark.png")
        assert not read(tmp_path / f"{i}.png", GREY)[1]
        assert read(tmp_path / f"{i}-dark.png", GREY)[1]


def test_grey_is_padded_with_its_borders_colour_and_never_cropped(saved) -> None:
    tall = Image.new("L", (28, 84), 40)
    tall.paste(255, (0, 0, 28, 3))
    pixels, inverted = read(saved(tall), GREY)
    assert pixels.shape == GREY
    assert not inverted
    assert (pixels[0, 5:, :] == 40).all()
    assert (pixels[0, :, :9] == 40).all()
    assert (pixels[0, 0, 11:17] > 200).all(), "the bar at the top is still there"


def test_colour_is_cropped_about_its_centre(saved) -> None:
    wide = Image.new("RGB", (96, 32), "red")
    wide.paste("blue", (32, 0, 64, 32))
    pixels, _ = read(saved(wide), COLOUR)
    assert pixels.shape == COLOUR
    assert (pixels[2] == 255).all()
    assert (pixels[0] == 0).all()


def test_a_large_picture_is_scaled_down_smoothly(saved) -> None:
    large = Image.fromarray(DIGIT).resize((2800, 2800), Image.Resampling.BILINEAR)
    for name in ("a.png", "a.jpg"):
        pixels, _ = read(saved(large, name), GREY)
        assert np.abs(pixels[0].astype(int) - DIGIT).mean() < 8


def test_transparent_parts_take_the_colour_that_shows_the_ink(saved) -> None:
    for ink, inverted in ((0, True), (255, False)):
        drawn = Image.merge("LA", [Image.new("L", (28, 28), ink), Image.fromarray(DIGIT)])
        pixels, was = read(saved(drawn), GREY)
        assert was == inverted
        assert np.abs(pixels[0].astype(int) - DIGIT).max() <= 1


def test_it_is_turned_as_exif_says(saved) -> None:
    turned = Image.fromarray(DIGIT).rotate(90, expand=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    pixels, _ = read(saved(turned, "a.png", exif=exif), GREY)
    assert (pixels[0] == DIGIT).all()


def test_the_first_of_several_frames(saved) -> None:
    path = saved(Image.fromarray(DIGIT), "a.gif", save_all=True, append_images=[Image.new("L", (28, 28), 99)])
    assert (read(path, GREY)[0][0] == DIGIT).all()


def test_what_is_no_picture_is_named(saved, tmp_path: Path) -> None:
    sound = saved(Image.fromarray(DIGIT)).read_bytes()
    for name, content in [("text.png", b"no picture"), ("empty.png", b""), ("cut.png", sound[: len(sound) // 2])]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}: \w+"):
            read(tmp_path / name, GREY)
    with pytest.raises(InputError, match=r"gone\.png: there is no such file"):
        read(tmp_path / "gone.png", GREY)
    with pytest.raises(InputError, match="it is no file"):
        read(Path("/dev/null"), GREY)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_bytes_raise_nothing_else(saved, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a.png", "a.jpg", "a.gif", "a.tif", "a.bmp", "a.webp"):
        sound = np.frombuffer(saved(Image.fromarray(DIGIT), name).read_bytes(), np.uint8)
        for _ in range(25):
            damaged = sound.copy()
            damaged[rng.integers(len(sound), size=5)] = rng.integers(256, size=5)
            (tmp_path / name).write_bytes(damaged.tobytes())
            with suppress(InputError):
                assert read(tmp_path / name, GREY)[0].shape == GREY


def test_a_folder_gives_its_pictures_in_order(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "deep/er/c.webp", "notes.txt", ".hidden.png", ".git/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [str(path.relative_to(tmp_path)) for path in files([tmp_path])]
    assert found == ["a.JPG", "b.png", "deep/er/c.webp"]
    assert list(files([tmp_path / "notes.txt"])) == [tmp_path / "notes.txt"], "what is named is tried"
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match=r"There is no picture in .*none"):
        list(files([tmp_path / "none"]))
