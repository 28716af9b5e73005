"""What all attacks share: options on the command line, and saving, printing, picturing and measuring what they craft.

An attack is one file of this folder: a function `craft(dataset, ratio, ...)`, which returns `Poisons`, and

    ATTACK = Attack("my-attack", craft)

    if __name__ == "__main__":
        main(ATTACK)

Then `python3 -m poisons.<file> --ratio 0.1 0.4` crafts a poison file for each ratio, and so do the sweeps by
`python3 -m poisons --attack my-attack ...`; training, results and report know it by its name.
"""

from __future__ import annotations

import dataclasses
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import command_line
import datasets
from command_line import Parser, refuse, run
from datasets import Dataset
from files import Lock, Unreadable, csv_lines, text, writing
from poisons import poison_set
from results import layout


@dataclass(frozen=True)
class Option:
    """A parameter of an attack's `craft`, which is an option of its command and an entry of its poison files' settings.

    type: makes a value of a text or refuses it (an argparse type); many: a list is given, and each value makes a file;
    flag: on the command line, where it is not the name's; also: other flags that are accepted, such as older ones;
    more: what argparse is told besides, such as choices.
    """

    name: str
    type: Callable[[str], Any] = str
    help: str = ""
    default: Any = None
    many: bool = False
    flag: str = ""
    also: tuple[str, ...] = ()
    more: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "flag", self.flag or "--" + self.name.replace("_", "-"))


def spelled(text: str) -> str:
    """An argparse type: the text of a gradient shaping as `Shaping.text` has it, so that one is not filed twice."""
    from models.shaping import shaping

    return shaping(text).text


RATIO = Option(
    "ratio", command_line.RATIO, "poisons per clean training row, above 0 and up to 1; one file each", many=True
)
SEED = Option("seed", command_line.SEED, "of what is drawn", layout.SEED)


@dataclass(frozen=True)
class Poisons:
    """What an attack crafted: labels, int [poisons], and the poisons, as training rows or as instances.

    rows: int [poisons], the training rows that they are made of; target_rows: int [poisons], second ones, where a
    poison is made of two; instances: float [poisons, *shape] in [0, 1]; counts: int [poisons], how often each stands in
    the training set, where it is not once.
    settings: what the file says in place of the options' values; measured: numbers and texts for crafting.csv;
    pictures: titles and images for a PNG beside the file; notes: lines for the user.
    """

    labels: np.ndarray
    rows: np.ndarray | None = None
    instances: np.ndarray | None = None
    counts: np.ndarray | None = None
    target_rows: np.ndarray | None = None
    settings: dict | None = None
    measured: dict = field(default_factory=dict)
    pictures: list[tuple[str, np.ndarray]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """How many rows they add to the training set."""
        return len(self.labels) if self.counts is None else int(np.sum(self.counts))


@dataclass(frozen=True)
class Attack:
    """An attack: its name, as result folders spell it, and `craft(dataset, **options)`, which returns `Poisons`.

    options: the parameters of `craft`; ratio: the name of the one that is the number of poisons per clean row.
    dataset: what its command poisons by default. fits(dataset): why a data set cannot be poisoned; None: it can.
    file(dataset_name, settings): where a poison file lies, if not in a folder of the attack's name, named after the
        data set, the attack, the ratio and unusual options.
    make(dataset, rows, target_rows, settings): the poisons, float [poisons, *shape], that a file describes by the
        training rows they are made of, if they are no copies.
    measure(dataset, settings, hits): values of the columns `measures`, which stand beside the accuracy; settings: of
        the poison set; hits(x [rows, features], labels [rows]): which rows a model gives these labels, bool [1, rows].
    examples(dataset, sets): name, titles and images of a picture of all sets that are crafted together.
    slow: crafting takes long, so that a file with the same settings is taken as it is.
    follows_seed: a sweep of another seed draws other poisons.
    """

    name: str
    craft: Callable[..., Poisons]
    options: tuple[Option, ...] = (RATIO,)
    ratio: str = "ratio"
    dataset: str = "subtask"
    fits: Callable[[Dataset], str | None] = lambda dataset: None
    file: Callable[[str, dict], Path] | None = None
    make: Callable[[Dataset, np.ndarray, np.ndarray | None, dict], np.ndarray] | None = None
    measures: tuple[str, ...] = ()
    measure: Callable[[Dataset, dict, Callable], Iterable[float]] | None = None
    examples: Callable[[Dataset, list[Poisons]], tuple[str, list[str], list[np.ndarray]]] | None = None
    slow: bool = False
    follows_seed: bool = False

    @property
    def swept(self) -> bool:
        """Whether a ratio and a seed are all that it must be told, so that `python3 -m poisons` can craft it."""
        return [option.name for option in self.options if option.many] == [self.ratio]

    def settings(self, dataset_name: str, ratio: float, seed: int = layout.SEED) -> dict:
        """What the file of a ratio says where all else is default, the seed too unless the attack follows it."""
        values = {option.name: option.default for option in self.options}
        values[self.ratio] = ratio
        if self.follows_seed:
            values["seed"] = seed
        return {"attack": self.name, "dataset": dataset_name, **_said(values)}

    def path(self, dataset_name: str, settings: dict) -> Path:
        """The poison file of these settings; its stem is the name of the set."""
        if self.file:
            return self.file(dataset_name, settings)
        name = "_".join([dataset_name, self.name, *([str(settings[self.ratio])] if self.ratio in settings else [])])
        name = layout.seeded(name + self.unusual(settings), settings.get("seed", layout.SEED))
        return layout.POISONS / "indiscriminate" / self.name / f"{name}.npz"

    def default_path(self, dataset_name: str, ratio: float, seed: int = layout.SEED) -> Path:
        """The poison file of a ratio, all else being default."""
        return self.path(dataset_name, self.settings(dataset_name, ratio, seed))

    def unusual(self, settings: dict, shown: tuple[str, ...] = ()) -> str:
        """What a file's name says of options that are not at their defaults, but for ratio, seed and those `shown`."""
        left = [option for option in self.options if option.name not in (self.ratio, "seed", *shown)]
        values = [(option.name, settings.get(option.name, option.default), option.default) for option in left]
        spelled = [f"_{name}_{value}" for name, value, default in values if value != default]
        return "".join(re.sub(r"[^\w.+-]", "_", text) for text in spelled)


def _said(options: dict) -> dict:
    """The options that have a value, which files say: one that is None is as if there were no such option."""
    return {name: value for name, value in options.items() if value is not None}


def two_classes(dataset: Dataset) -> str | None:
    """For attacks on two classes: why a data set does not fit."""
    if dataset.classes != 2:
        return f"it has {dataset.classes} classes, not two"
    empty = [label for label in (0, 1) if not (dataset.y_train == label).any()]
    return f"class {empty[0]} has no training rows" if empty else None


def of_images(dataset: Dataset) -> str | None:
    """For attacks on pixels: why a data set does not fit."""
    return None if len(dataset.shape) == 3 else "its rows are no images"


# --- commands ---


def main(attack: Attack) -> None:
    """The command of an attack: crafts a poison file for each value of the option that takes many."""

    def craft_them() -> None:
        parser = Parser(sys.modules[attack.craft.__module__].__doc__)
        add_dataset(parser, attack.dataset)
        add_options(parser, attack.options)
        options = vars(parser.parse_args())
        show(attack, datasets.load(options.pop("dataset")), sets_of(attack, options))

    run(craft_them)


def add_dataset(parser: Parser, default: str) -> None:
    parser.add_argument("--dataset", default=default, help=f"one of {', '.join(datasets.NAMES)} (default: %(default)s)")


def add_options(parser: Parser, options: Iterable[Option]) -> None:
    """Add an attack's options to a parser: those that take many values must be given, the others have a default."""
    for option in options:
        given: dict[str, Any] = {"nargs": "+", "required": True} if option.many else {"default": option.default}
        default = "" if option.many or option.default is None else " (default: %(default)s)"
        parser.add_argument(
            option.flag,
            *option.also,
            dest=option.name,
            type=option.type,
            help=option.help + default,
            **given,
            **option.more,
        )


def sets_of(attack: Attack, options: dict) -> list[dict]:
    """The options of each set: of a list of values, each once, one."""
    many = next(option.name for option in attack.options if option.many)
    return [{**options, many: value} for value in dict.fromkeys(options[many])]


def show(attack: Attack, dataset: Dataset, sets: list[dict], examples: bool = True) -> None:
    """Craft sets, print the paths of their files and, on standard error, a line about each.

    examples: draw the picture of all sets, too.
    """
    for path, notes in craft(attack, dataset, sets, examples):
        print(path, flush=True)
        name = path.stem if dataset.name in path.stem else f"{dataset.name}, {path.stem}"
        for note in notes:
            print(f"{name}: {note}", file=sys.stderr)


# --- crafting ---


def check(attack: Attack, dataset: Dataset, sets: Iterable[dict]) -> None:
    """Refuse a data set that the attack cannot poison, and a ratio of less than one poison."""
    why = attack.fits(dataset)
    if why:
        refuse(f"--dataset {dataset.name}: {attack.name} cannot poison it: {why}")
    flags = {option.name: option.flag for option in attack.options}
    for options in sets:
        if attack.ratio in options and round(options[attack.ratio] * len(dataset.y_train)) == 0:
            refuse(
                f"{flags[attack.ratio]} {options[attack.ratio]}: less than one poison among {len(dataset.y_train)}"
                " rows; choose a larger one"
            )


def craft(
    attack: Attack, dataset: Dataset, sets: list[dict], examples: bool = True
) -> Iterator[tuple[Path, list[str]]]:
    """Craft poison files, one for each dict of options, and yield their paths and what is to be said of each.

    Options that are left out have their defaults. A file that is there is left alone: of a slow attack where it has the
    same settings, else where it is what is crafted. Wrong input is refused before anything is written.
    """
    check(attack, dataset, sets)
    sets = [{**{option.name: option.default for option in attack.options}, **options} for options in sets]
    if attack.slow:
        _measurements(layout.crafting_file(attack.name))  # refuses a damaged file before the work rather than after it
    crafted = [None if attack.slow else _call(attack, dataset, options) for options in sets]
    for options, poisons in zip(sets, crafted):
        yield _craft_one(attack, dataset, options, poisons)
    if examples and attack.examples and len(dataset.shape) > 1:
        name, titles, images = attack.examples(dataset, crafted)
        draw(layout.examples_picture(attack.name, name), titles, images)


def _call(attack: Attack, dataset: Dataset, options: dict) -> Poisons:
    """What the attack crafts, with its settings."""
    poisons = attack.craft(dataset, **options)
    return dataclasses.replace(poisons, settings=poisons.settings or options)


def _craft_one(attack: Attack, dataset: Dataset, options: dict, poisons: Poisons | None) -> tuple[Path, list[str]]:
    """The file of one set, and the lines about it; poisons: the set, None where it is not crafted yet."""
    settings = {"attack": attack.name, **dataset.named, **_said(poisons.settings if poisons else options)}
    path, began, took = attack.path(dataset.name, settings), time.monotonic(), "crafted"
    if poisons is None:
        if poison_set.settings_of(path) == settings:
            return path, ["crafted before"]
        poisons = _call(attack, dataset, options)
        took = f"in {time.monotonic() - began:.1f} s"
    arrays = {name: getattr(poisons, name) for name in ("rows", "instances", "counts", "target_rows")}
    wrote = poison_set.save(path, settings, poisons.labels, **arrays)
    if wrote and poisons.pictures and len(dataset.shape) > 1:
        titles, images = zip(*poisons.pictures)
        draw(path.with_suffix(".png"), titles, [image.reshape(dataset.shape) for image in images])
    if wrote and poisons.measured:
        ratio = settings.get(attack.ratio, poisons.total / len(dataset.y_train))
        line = {
            "poison_set": path.stem, "attack": attack.name, "dataset": dataset.name, "ratio": ratio,
            "seed": settings.get("seed", ""), "n_poison": poisons.total,
            "wall_seconds": round(time.monotonic() - began, 1),
        }  # fmt: skip
        _write_measurements(
            layout.crafting_file(attack.name),
            {**line, **{name: value for name, value in settings.items() if name != attack.ratio}, **poisons.measured},
        )
    return path, [*poisons.notes, f"{poisons.total} poisons {took if wrote else 'already there'}"]


# --- what crafting measured: settings, bounds, losses, solver failures, seconds, a line a set ---


def _measurements(path: Path):
    """The lines of a crafting.csv as text, a data frame; empty where there is none."""
    import pandas

    if not path.exists():
        return pandas.DataFrame(columns=["poison_set"], dtype=str)
    try:
        header, *cells = csv_lines(text(path))
    except Unreadable as error:
        refuse(f"{path}: damaged ({error}); restore it, or delete it to begin a new one")
    table = pandas.DataFrame(cells, columns=header, dtype=str)
    if header.count("poison_set") != 1 or len(set(header)) < len(header):
        refuse(f"{path}: has no column poison_set; restore it, or delete it to begin a new one")
    return table


def _write_measurements(path: Path, line: dict) -> None:
    """Put a line into crafting.csv, in place of the same set's if there is one; they are sorted by the set's name."""
    import pandas

    lock = Lock(path.with_suffix(".lock"))
    lock.take(0, wait=True)  # until another process has put in its line
    known = _measurements(path)
    lines = pandas.concat(
        [known[known["poison_set"] != line["poison_set"]], pandas.DataFrame([line]).astype(str)]
    ).fillna("")
    with writing(path) as stream:
        lines.sort_values("poison_set").to_csv(stream, index=False, lineterminator="\n")
    lock.release(0)


# --- pictures ---


def draw(path: Path, titles: Iterable[str], images: Iterable[np.ndarray], columns: int = 8) -> None:
    """Draw images, [height, width(, 1)] in [0, 1], in a grid, with a title each, as a PNG."""
    from results import plotting

    images = list(images)
    columns = min(columns, len(images))
    figure, axes = plotting.panels(columns, -(-len(images) // columns), 1.3, 1.5)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, title, image in zip(axes.flat, titles, images):
        axis.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=1)
        axis.set_title(title, fontsize=6)
    plotting.save(figure, path)
