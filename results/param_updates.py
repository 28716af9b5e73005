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

import io
import re
from pathlib import Path

import numpy as np

from files import Unreadable, read_npz, writing
from results import cells, layout

PARTS, PARAMETERS = ("clean", "poison"), ("kernel", "bias")
DUMPED = re.compile(r"(\d+)_(\d+)_(clean|poison)_([01])\.csv")


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

    Raises `Unreadable` when an epoch is missing or damaged.
    """
    if next(Path(folder).glob("*.csv"), None) is not None:
        return _read_csv(folder)
    epochs = sorted(int(path.stem) for path in Path(folder).glob("*.npz") if path.stem.isdigit())
    if not epochs or epochs != list(range(1, len(epochs) + 1)):
        raise Unreadable(f"epochs {epochs} are not 1, 2, 3 ...")
    arrays = [read_npz(Path(folder) / f"{epoch}.npz") for epoch in epochs]
    expected = {f"{part}_{parameter}" for part in PARTS for parameter in PARAMETERS} | {
        "clean_norms",
        "poison_norms",
        "poison_cosines",
    }
    for epoch, content in zip(epochs, arrays):
        if set(content) != expected:
            raise Unreadable(f"{epoch}.npz holds {', '.join(sorted(content))}, not {', '.join(sorted(expected))}")
    return arrays


def reduced(folder: Path) -> bool:
    """Whether analyze_gradients.py has written a folder's extracts of the mean gradients."""
    return all((Path(folder) / name).exists() for name in (layout.MAGNITUDES, layout.ORIENTATIONS))


def read_extracts(folder: Path) -> np.ndarray:
    """A folder's extracts of the mean gradients, float64 [epochs, (clean norm, poison norm, cosine)]."""
    magnitudes, cosines = (
        np.loadtxt(Path(folder) / name, delimiter=",", ndmin=2) for name in (layout.MAGNITUDES, layout.ORIENTATIONS)
    )
    return np.column_stack([magnitudes, cosines])


def read_examples(folder: Path) -> np.ndarray | None:
    """A folder's quantiles (5, 25, 50, 75, 95%) over single examples, float64 [epochs, (clean norms, poison norms,
    poison cosines), quantiles].

    None where single examples were not recorded.
    """
    text = cells.extract(Path(folder), layout.PER_EXAMPLE)
    if text is None:
        return None
    lines = np.loadtxt(io.StringIO(text), delimiter=",", skiprows=1, ndmin=2)
    return lines[:, 1:].reshape(len(lines), 3, 5)


def _dump_csv(folder: Path, epoch: int, record, replica: int) -> None:
    for part in PARTS:
        for index, parameter in enumerate(PARAMETERS):
            for batch, mean in zip(*record.batch_means(replica, part, parameter)):
                with writing(folder / f"{epoch}_{batch + 1}_{part}_{index}.csv") as stream:
                    stream.writelines(f"{value!r}\n" for value in mean.reshape(-1).tolist())


def _read_csv(folder: Path) -> list[dict[str, np.ndarray]]:
    """The epochs of the paper's layout, their parameters flat."""
    sums: dict[int, dict[str, list]] = {}
    for path in sorted(Path(folder).glob("*.csv")):
        match = DUMPED.fullmatch(path.name)
        if match is None:
            raise Unreadable(f"{path.name} is not named <epoch>_<batch>_<clean|poison>_<param>.csv")
        try:
            values = np.array(path.read_text().split(), np.float64)
        except ValueError:
            raise Unreadable(f"{path.name} holds something that is not a number") from None
        name = f"{match[3]}_{PARAMETERS[int(match[4])]}"
        sums.setdefault(int(match[1]), {}).setdefault(name, []).append(values)
    if sorted(sums) != list(range(1, len(sums) + 1)):
        raise Unreadable(f"epochs {sorted(sums)} are not 1, 2, 3 ...")
    return [{name: np.mean(values, 0) for name, values in sums[epoch].items()} for epoch in sorted(sums)]
