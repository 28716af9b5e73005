"""Recorded gradients: `param_updates/` holds one npz an epoch, written by train.py and read by analyze_gradients.py.

    clean_kernel, poison_kernel     float32 [fan_in, classes], mean over an epoch's batches of a batch's mean gradient
    clean_bias, poison_bias         float32 [classes], likewise; batches without poison do not count in the poison's
    clean_norms, poison_norms       float32 [rows], norm of each row's kernel gradient before clipping, in the order of
                                    training, of the rows that the replica sees
    poison_cosines                  float32 [poisons], cosine of each poison's kernel gradient to its batch's mean clean
                                    gradient

All are of the last layer, at the parameters before each update, as in section 3 of the paper. With `--dump csv` the
layout is the paper's instead: a file for each batch and parameter, <epoch>_<batch>_<clean|poison>_<param>.csv, one
value a line, param 0 the kernel and 1 the bias; the norms and cosines of single rows have no place in it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from files import Unreadable, below, csv_lines, read_json, read_npz, text, writing
from results import cells, layout

PARTS, PARAMETERS = ("clean", "poison"), ("kernel", "bias")
EXTRACT_BYTES, RECORD_BYTES = 2**20, 2**24  # thousands of epochs; a million numbers
MOST_EPOCHS, MOST_VALUES = 10_000, 2**27  # of all recorded epochs together: 1 GiB of float64
ROWS = ("clean_norms", "poison_norms", "poison_cosines")  # of single examples


def write_epoch(folder: Path, epoch: int, record, replica: int, dump: str = "npz") -> None:
    """Write what one replica's epoch measured (a `models.minibatches.Record`) as `dump` says, npz or csv."""
    if dump == "csv":
        _dump_csv(folder, epoch, record, replica)
        return
    with writing(folder / f"{epoch}.npz", "wb") as stream:
        np.savez(stream, **arrays(record, replica))


def arrays(record, replica: int) -> dict[str, np.ndarray]:
    """What an npz file holds of one replica's epoch."""
    norms, is_poison = record.norms(replica), record.is_poison
    seen = ~np.isnan(norms)
    return {
        **{
            f"{part}_{parameter}": record.batch_means(replica, part, parameter)[1].mean(0)
            for part in PARTS
            for parameter in PARAMETERS
        },
        "clean_norms": norms[~is_poison & seen],
        "poison_norms": norms[is_poison & seen],
        "poison_cosines": record.cosines(replica)[seen[is_poison]],
    }


def read(folder: Path) -> list[dict[str, np.ndarray]]:
    """The recorded epochs of a folder in order, from either layout.

    Raises `Unreadable` when an epoch is missing or damaged, or is not what the run.json beside the folder vouches for.
    """
    folder = Path(folder)
    files, _, others = below(folder)
    odd = [path for path in files if path.parent != folder or not layout.RECORDED.fullmatch(path.name)]
    odd = [path for path in odd if not path.name.endswith(".writing")] + [path for path, _ in others]
    if odd:
        raise Unreadable(f"{odd[0].name} is no recorded epoch: those are called 1.npz or 1_1_clean_0.csv ...")
    run = read_json(folder.parent / layout.RUN)
    if run is not None and not cells.recorded_whole(folder.parent, run):
        raise Unreadable(f"it is not what was recorded: its SHA-256 is not the one in {layout.RUN}")
    if any(path.suffix == ".csv" for path in files):
        return _read_csv([path for path in files if path.suffix != ".writing"])
    epochs = sorted(int(path.stem) for path in files if path.suffix == ".npz")
    _check_epochs(epochs)
    left, found = MOST_VALUES, []
    for epoch in epochs:
        try:
            found.append(checked(read_npz(folder / f"{epoch}.npz"), found[0] if found else None))
        except Unreadable as error:
            raise Unreadable(f"{epoch}.npz: {error}") from None
        left -= sum(values.size for values in found[-1].values())
        if left < 0:
            raise Unreadable(f"it has more than {MOST_VALUES} numbers")
    return found


def _check_epochs(epochs: list[int]) -> None:
    if not epochs or epochs != list(range(1, len(epochs) + 1)) or len(epochs) > MOST_EPOCHS:
        shown = ", ".join(map(str, epochs[:20])) or "none"
        raise Unreadable(f"its epochs are not 1, 2, 3 ... but {shown}")


def checked(arrays: dict[str, np.ndarray], first: dict[str, np.ndarray] | None) -> dict[str, np.ndarray]:
    """The arrays of an epoch, of the shapes of the first epoch's; raises `Unreadable` where they are not such.

    NaN is a gradient of weights that diverged, and a mean without batches.
    """
    expected = {f"{part}_{parameter}": 2 - at for part in PARTS for at, parameter in enumerate(PARAMETERS)}
    expected |= dict.fromkeys(ROWS, 1)
    if set(arrays) != set(expected):
        raise Unreadable(f"it holds {', '.join(sorted(arrays))}, not {', '.join(sorted(expected))}")
    for name, values in arrays.items():
        if values.dtype.kind != "f" or values.ndim != expected[name]:
            raise Unreadable(f"{name} is {values.dtype} of {values.ndim} dimensions, not floats of {expected[name]}")
        if first is not None and name not in ROWS and values.shape != first[name].shape:
            raise Unreadable(f"{name} is {values.shape}, not {first[name].shape} as in the first epoch")
    for parameter in PARAMETERS:
        if arrays[f"clean_{parameter}"].shape != arrays[f"poison_{parameter}"].shape:
            raise Unreadable(f"the clean {parameter} has another shape than the poison's")
    if arrays["clean_kernel"].shape[1:] != arrays["clean_bias"].shape or not arrays["clean_kernel"].size:
        raise Unreadable("the kernel has other classes than the bias")
    return arrays


def reduced(folder: Path) -> bool:
    """Whether analyze_gradients.py has written a folder's extracts of the mean gradients."""
    return all((Path(folder) / name).exists() for name in (layout.MAGNITUDES, layout.ORIENTATIONS))


def read_extracts(folder: Path) -> np.ndarray:
    """A folder's extracts of the mean gradients, float64 [epochs, (clean norm, poison norm, cosine)]; raises
    `Unreadable`.
    """
    magnitudes, cosines = (
        _numbers(text(Path(folder) / name, EXTRACT_BYTES), width)
        for name, width in ((layout.MAGNITUDES, 2), (layout.ORIENTATIONS, 1))
    )
    if len(magnitudes) != len(cosines):
        raise Unreadable(f"{layout.MAGNITUDES} and {layout.ORIENTATIONS} are of different numbers of epochs")
    return np.column_stack([magnitudes, cosines])


def read_examples(folder: Path) -> np.ndarray | None:
    """A folder's quantiles (5, 25, 50, 75, 95%) over single examples, float64 [epochs, (clean norms, poison norms,
    poison cosines), quantiles].

    None where single examples were not recorded; raises `Unreadable`.
    """
    content = cells.extract(Path(folder), layout.PER_EXAMPLE)
    if content is None:
        return None
    if len(content) > EXTRACT_BYTES:
        raise Unreadable(f"it has more than {EXTRACT_BYTES:,} bytes")
    lines = _numbers(content.partition("\n")[2], 16)
    return lines[:, 1:].reshape(len(lines), 3, 5)


def _numbers(content: str, width: int) -> np.ndarray:
    """The numbers of a CSV text without a header, float64 [lines, width]; raises `Unreadable`."""
    try:
        found = np.array([list(map(float, line)) for line in csv_lines(content)])
    except ValueError:
        raise Unreadable("damaged: it holds something that is not a number") from None
    if found.shape[1:] != (width,):
        raise Unreadable(f"damaged: its lines are not of {width} numbers")
    return found


def _dump_csv(folder: Path, epoch: int, record, replica: int) -> None:
    for part in PARTS:
        for index, parameter in enumerate(PARAMETERS):
            for batch, mean in zip(*record.batch_means(replica, part, parameter)):
                with writing(folder / f"{epoch}_{batch + 1}_{part}_{index}.csv") as stream:
                    stream.writelines(f"{value!r}\n" for value in mean.reshape(-1).tolist())


def _read_csv(paths: list[Path]) -> list[dict[str, np.ndarray]]:
    """The epochs of the paper's layout, their parameters flat."""
    sums: dict[int, dict[str, list]] = {}
    left, shapes = MOST_VALUES, {}
    for path in paths:
        match = layout.DUMPED.fullmatch(path.name)
        if match is None:
            raise Unreadable(f"{path.name} is not named <epoch>_<batch>_<clean|poison>_<param>.csv")
        try:
            values = np.array(text(path, RECORD_BYTES).split(), np.float64)
        except Unreadable as error:
            raise Unreadable(f"{path.name}: {error}") from None
        except ValueError:
            raise Unreadable(f"{path.name} holds something that is not a number") from None
        left -= values.size
        if left < 0:
            raise Unreadable(f"it has more than {MOST_VALUES} numbers")
        if not values.size or shapes.setdefault(match[4], values.size) != values.size:
            raise Unreadable(f"{path.name} has {values.size} numbers, not {shapes.get(match[4])} as others")
        name = f"{match[3]}_{PARAMETERS[int(match[4])]}"
        sums.setdefault(int(match[1]), {}).setdefault(name, []).append(values)
    _check_epochs(sorted(sums))
    for epoch, parts in sums.items():
        if len(parts) < len(PARTS) * len(PARAMETERS):
            raise Unreadable(f"epoch {epoch} lacks the files of a part or parameter")
    return [{name: np.mean(values, 0) for name, values in sums[epoch].items()} for epoch in sorted(sums)]
