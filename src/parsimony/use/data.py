"""Labelled images to score or calibrate a network on: a split of its own data set or of another one."""

from parsimony.config import CONF, composed
from parsimony.data.sources import ImageSet, Source, Split
from parsimony.errors import InputError
from parsimony.targets import build
from parsimony.trained import Trained

SPLITS = ("train", "validation", "test")


def split_of(trained: Trained, typed: str) -> tuple[str, Split]:
    """What `typed` names, SPLIT, NAME or NAME/SPLIT, downloaded if need be; and its name, as shown everywhere.

    The training split is the images that the run was trained on; validation, those it was watched on. NAME alone means
    its test set. Raises InputError for names that do not exist and for data that the network was not made for.
    """
    own = trained.source()
    name, _, split = typed.partition("/")
    if typed in SPLITS:
        name, split = own.name, typed
    split = split or "test"
    if split not in SPLITS:
        raise InputError(f"--data {typed}: there is no split {split!r}; there are {', '.join(SPLITS)}.")
    if name == own.name:
        return _own(trained, split)
    source = _other(name, trained)
    _check_fits(trained, source)
    if split == "validation":
        raise InputError(f"--data {typed}: only the run's own data set, {own.name}, has a validation split.")
    source.download()
    images = source.load()
    return _titled(images, split), images.train if split == "train" else images.test


def _own(trained: Trained, split: str) -> tuple[str, Split]:
    data = trained.data()
    data.prepare_data()
    data.setup()
    assert data.images is not None
    title = _titled(data.images, split)
    if split == "test":
        return title, data.images.test
    if split == "train":
        return title, data.train
    if data.watched is None or data.validation == "test":
        raise InputError(f"{trained.folder} was trained on every training image: it has no validation split.")
    return title, data.watched


def _other(name: str, trained: Trained) -> Source:
    options = sorted(path.stem for path in (CONF / "data").glob("*.yaml"))
    if name not in options:
        raise InputError(f"There is no data set {name!r}; there are {', '.join(options)}.")
    config = composed([f"data={name}"])
    config.data.root = trained.config["data"]["root"]
    return build(config.data.source, Source)


def _check_fits(trained: Trained, source: Source) -> None:
    if tuple(source.shape) != tuple(trained.shape):
        theirs, ours = (" x ".join(map(str, shape)) for shape in (source.shape, trained.shape))
        raise InputError(
            f"{source.name} has images of {theirs}, and {trained.name} takes {ours}: take another data set."
        )
    if tuple(source.classes) != trained.classes:
        raise InputError(
            f"{source.name}'s classes ({', '.join(source.classes)}) are not those that {trained.name} tells apart "
            f"({', '.join(trained.classes)}): take another data set."
        )


def _titled(images: ImageSet, split: str) -> str:
    return f"{images.name}/{split}"
