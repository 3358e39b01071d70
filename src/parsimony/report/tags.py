"""What a scalar's tag means, whoever named it."""

import re

SPLITS = {
    "train": {"train", "training"},
    "validation": {"val", "valid", "validation", "eval", "evaluation", "dev"},
    "test": {"test", "testing"},
}
SPLIT_OF = {word: split for split, words in SPLITS.items() for word in words}
METRICS = {"accuracy": "accuracy", "acc": "accuracy", "top": "accuracy", "loss": "loss"}
PARTIAL = {"step", "batch", "iterations"}  # of a few images only, noisier than an epoch's figure
LEARNING_RATE, IMAGES_PER_SECOND = "learning rate", "images/s"


def meaning(tag: str, part: str = "") -> str | None:
    """`validation/accuracy` for val_acc, valid/top1, or epoch_accuracy in the folder `part` = validation; and so on.

    One of train, validation, test and watched test with accuracy or loss; "learning rate"; "images/s"; or None.
    """
    words = _words(f"{part}/{tag}")
    if "lr" in words or {"learning", "rate"} <= set(words):
        return LEARNING_RATE
    if tag == "images_per_second":
        return IMAGES_PER_SECOND
    metrics = {METRICS[word] for word in words if word in METRICS}
    named = splits(f"{part}/{tag}")
    higher_top = "top" in words and not re.search(r"top[\W_]?1(?!\d)", tag.lower())
    if len(metrics) != 1 or len(named) > 1 or higher_top or "final" in words or PARTIAL & set(words):
        return None
    split = named.pop() if named else "train"
    return f"{'watched ' if 'watched' in words else ''}{split}/{metrics.pop()}"


def splits(tag: str) -> set[str]:
    """Those that it names."""
    return {SPLIT_OF[word] for word in _words(tag) if word in SPLIT_OF}


def _words(tag: str) -> list[str]:
    """valAcc, val/acc and val_acc1 alike are val and acc."""
    return re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", tag).lower())
