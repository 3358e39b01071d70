"""Runs grouped into settings over seeds: their statistics, what tells them apart, and which one wins."""

import json
import math
import re
import statistics
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from parsimony.config import printable
from parsimony.noise import TEST_IMAGES, binomial, one_more, student
from parsimony.report.run import PLACES, SEEDS, Run

FILES = "data files"  # what settings of the same hyperparameters are told apart by


@dataclass(frozen=True)
class Mean:
    """Over the seeds of a setting; the standard deviation of one of them is not known."""

    mean: float
    sd: float | None
    n: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Mean | None":
        known = [value for value in values if value is not None and math.isfinite(value)]
        if not known:
            return None
        return cls(statistics.mean(known), statistics.stdev(known) if len(known) > 1 else None, len(known))


@dataclass
class Setting:
    """Runs that differ in their seed at most; `values` are the hyperparameters that tell settings apart."""

    runs: list[Run]  # those that ended, one a seed
    unfinished: list[Run]
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def first(self) -> Run:
        return (self.runs or self.unfinished)[0]

    @property
    def judged_on(self) -> str:
        """What its accuracy was measured on: the test set only where it has no validation split."""
        return "validation" if self.mean("validation/accuracy") else "test"

    @property
    def accuracy(self) -> Mean | None:
        return self.mean(f"{self.judged_on}/accuracy")

    @property
    def n(self) -> int:
        """Its runs that came to a figure: one whose loss is no number has none."""
        judged = self.accuracy or self.mean("validation/loss")
        return judged.n if judged else len(self.runs)

    @property
    def epochs(self) -> list[int]:
        """Those of its shortest run and of its longest, once where all are as long; empty where none is known."""
        lengths = [run.epochs for run in self.runs if run.epochs]
        return sorted({min(lengths), max(lengths)}) if lengths else []

    def mean(self, what: str) -> Mean | None:
        return Mean.of(run.final.get(what) for run in self.runs)

    def label(self) -> str:
        known = {key: value for key, value in self.values.items() if value not in (None, "")}
        name = [known.pop("name")] if "name" in known else []
        values = [f"{short(key, self.values)}={shown(value)}" for key, value in known.items()]
        return " ".join(name + values) or self.first.name or self.first.path


def group(runs: Sequence[Run], warnings: list[str]) -> list[Setting]:
    """The settings of `runs`, best first; other data files make another. Of a run without a config there is none."""
    grouped: dict[str, list[Run]] = {}
    data = {_source(run): run.data for run in runs if run.files}
    for run in sorted(runs, key=lambda run: run.written):  # of the same run twice the later one counts
        if not run.files:  # a run tells at its end what its files are
            run.data = data.get(_source(run), run.data)
        if run.ended or run.hyperparameters:
            known = [run.name, run.hyperparameters] if run.hyperparameters else run.path
            key = json.dumps(known, sort_keys=True, default=str)
            grouped.setdefault(key, []).append(run)
    settings = []
    for members in grouped.values():
        by_files: dict[str | None, dict[Any, Run]] = {}
        for run in filter(lambda run: run.ended, members):
            by_seed = by_files.setdefault(run.files, {})
            seed = run.seed if isinstance(run.seed, int | float | str) else run.path
            if seed in by_seed:  # the same again is no second sample of the noise
                warnings.append(f"{by_seed[seed].path} is left out: {run.path} has its setting and its seed")
            by_seed[seed] = run
        unfinished = [run for run in members if not run.ended]
        for ended in list(by_files.values()) or [{}]:
            setting = Setting(list(ended.values()), unfinished)
            if len(setting.epochs) > 1 and "trainer.max_epochs" not in setting.first.hyperparameters:
                lengths = " to ".join(map(str, setting.epochs))
                warnings.append(f"{setting.first.path} and others of its setting ran for {lengths} epochs")
            settings.append(setting)
            unfinished = []
    _tell_apart(settings)
    return sorted(settings, key=_rank)


def _source(run: Run) -> str:
    source = {key: value for key, value in run.hyperparameters.items() if key.startswith("data.source.")}
    return json.dumps(source, sort_keys=True, default=str) if source else run.path


def short(key: str, keys: Collection[str]) -> str:
    """model.dropout is dropout, unless another key ends so too."""
    last = key.rpartition(".")[2]
    if last == "_target_":
        group = key.removesuffix("._target_")
        return key if group in keys else group
    return last if [other.rpartition(".")[2] for other in keys].count(last) == 1 else key


def shown(value: Any) -> str:
    if value is None or value == "":
        return "-"
    return f"{value:g}" if isinstance(value, float) else printable(value)


def percent(accuracy: Mean | None) -> str:
    if accuracy is None:
        return "-"
    return f"{100 * accuracy.mean:.2f}{'' if accuracy.sd is None else f' ± {100 * accuracy.sd:.2f}'} % (n={accuracy.n})"


def by_data(settings: Sequence[Setting]) -> dict[str, list[Setting]]:
    """The settings of each data set, best first: only these compare."""
    found: dict[str, list[Setting]] = {}
    for setting in settings:
        found.setdefault(setting.first.data or "", []).append(setting)
    return found


def rivals(settings: Sequence[Setting], judged_on: str | None = None) -> list[Setting]:
    """Those whose accuracy was measured on `judged_on`, by default on what that of the first was."""
    return [s for s in settings if s.accuracy and s.judged_on == (judged_on or settings[0].judged_on)]


def verdicts(settings: Sequence[Setting]) -> list[str]:
    """Which setting wins, and whether its lead over the next exceeds the noise: a sentence for all that compare."""
    data_sets = by_data(settings)
    sentences = [
        f"{f'On {data}: ' if len(data_sets) > 1 and data else ''}{_verdict(*ranked)}"
        for data, compared in data_sets.items()
        for judged_on in ("validation", "test")
        if (ranked := rivals(compared, judged_on))
    ]
    return sentences or ["No run that ended has an accuracy: there is no winner."]


def _verdict(best: Setting, following: Setting | None = None, *_: Setting) -> str:
    assert best.accuracy is not None
    where = "validation images" if best.judged_on == "validation" else "the test set"
    figure = f"{percent(best.accuracy)} on {where}"
    if following is None:
        return f"{best.label()} has nothing to compare with: {figure}."
    assert following.accuracy is not None
    lead = best.accuracy.mean - following.accuracy.mean
    text = f"{best.label()} wins: {figure}, {100 * lead:.2f} points above {following.label()}; "
    noise, how = _noise(best, following)
    if noise is None:
        text += f"whether this lead exceeds the noise is not known: {how}."
    else:
        text += f"this lead {'exceeds' if lead > noise else 'is within'} the noise of {100 * noise:.2f} points ({how})."
    if best.judged_on == "test":
        text += " A setting chosen by the test set flatters itself: choose on a validation split."
    return text


def _noise(best: Setting, following: Setting) -> tuple[float | None, str]:
    """The lead that chance alone reaches in 5 % of such pairs, and how it was reckoned."""
    a, b = best.accuracy, following.accuracy
    assert a is not None
    assert b is not None
    if a.sd is not None and b.sd is not None and a.sd + b.sd > 0:
        variances = a.sd**2 / a.n, b.sd**2 / b.n
        freedom = sum(variances) ** 2 / (variances[0] ** 2 / (a.n - 1) + variances[1] ** 2 / (b.n - 1))
        return student(int(freedom + 1e-9)) * math.sqrt(sum(variances)), "Welch's t-test over the seeds at 95 %"
    several = a if a.sd is not None else b
    of_seeds = one_more(several.sd, several.n) if several.sd else 0.0
    counts = [_images(setting.first) for setting in (best, following)]
    runs = [(mean.mean, count) for mean, count in zip((a, b), counts, strict=True) if count]
    of_images = binomial(*runs) if len(runs) == 2 else 0.0
    if of_seeds > of_images:
        return of_seeds, f"one run beside {several.n} seeds of the other setting, at 95 %"
    why = "one seed shows no other" if a.sd is None or b.sd is None else "the seeds agree exactly"
    if len(runs) < 2:
        return None, f"{why}, and how many images were scored is not recorded"
    return of_images, f"binomial over {' and '.join(f'{n:,}' for n in dict.fromkeys(counts))} images at 95 %; {why}"


def _images(run: Run) -> int | None:
    """How many images its accuracy was measured on."""
    if "validation/accuracy" in run.final:
        found = re.match(r"([\d,]+) images", run.evaluated_on or "")
        return int(found[1].replace(",", "")) if found else None
    return TEST_IMAGES.get((run.data or "").partition(" ")[0])


def _rank(setting: Setting) -> tuple[bool, bool, float, float]:
    accuracy, loss = setting.accuracy, setting.mean("validation/loss")
    return (
        not accuracy,
        setting.judged_on != "validation",
        -accuracy.mean if accuracy else 0.0,
        loss.mean if loss else math.inf,
    )


def _tell_apart(settings: Sequence[Setting]) -> None:
    """Gives each setting its values: of what was typed all that differs, of the rest what is needed beside it."""
    judged = [setting for setting in settings if setting.runs] or settings
    typed = {key for setting in judged for key in _typed(setting)}
    leaves = {key for setting in judged for key in setting.first.hyperparameters}
    groups = {key for key in typed - leaves if "." not in key}  # model=mnist_narrow
    known = [""] * len(judged)
    for key in ["name", *sorted(groups), *sorted(typed & leaves), *sorted(leaves - typed), FILES]:
        values = [repr(_value(setting, key)) for setting in judged]
        refined = [f"{before}|{value}" for before, value in zip(known, values, strict=True)]
        if len(set(refined)) > len(set(known)) or (key in typed & leaves and len(set(values)) > 1):
            known = refined
            for setting in settings:
                setting.values[key] = _value(setting, key)


def _value(setting: Setting, key: str) -> Any:
    if key == "name":
        return setting.first.name
    if key == FILES:
        return setting.first.files
    return setting.first.hyperparameters.get(key, _typed(setting).get(key))


def _typed(setting: Setting) -> dict[str, str]:
    """The overrides of its runs, but for those that do not say what is trained."""
    overrides = [re.fullmatch(r"\+*([\w./]+)=(.*)", text) for run in setting.runs for text in run.overrides]
    found = {match[1]: match[2] for match in overrides if match}
    return {k: v for k, v in found.items() if k.partition(".")[0] not in PLACES | SEEDS | {"experiment"}}
