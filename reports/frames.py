"""What the tables have in common: published numbers, shapings, means over seeds, orders of rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from models.kind import KINDS, UNDEFENDED_TEXT
from models.protocols import NETWORKS, PROTOCOLS
from models.shaping import UNDEFENDED, Shaping, shaping
from results import layout

SHAPING = ["shaping", "clip_norm", "noise_multiplier"]  # the first says it all
MODES = ["oneshot", "multipoison"]
ORDERS = {"mode": MODES, "network": list(NETWORKS), "data": [name for name, _ in PROTOCOLS]}


def published(name: str) -> pd.DataFrame:
    """A table of published numbers; its shapings, where it has any, as `value`."""
    found = pd.read_csv(layout.PUBLISHED / f"{name}.csv", float_precision="round_trip")
    if "clip_norm" in found:
        pairs = zip(found.pop("clip_norm"), found.pop("noise_multiplier"))
        found["value"] = [UNDEFENDED if np.isnan(clip) else shaping(f"{clip}:{noise}") for clip, noise in pairs]
    return found


def with_shapings(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame with the columns SHAPING instead of the shapings in its column `value`."""
    told = [(value.text, value.clip_norm, value.noise_multiplier) for value in frame.value]
    return pd.concat([frame.drop(columns="value"), pd.DataFrame(told, frame.index, SHAPING)], axis=1)


def published_targets() -> pd.DataFrame:
    """The published targeted attacks: mode, network, `value`, the learning rate and published_successes of 100."""
    known = published("tpoisoning").rename(columns={"successes": "published_successes"})
    pairs = known[["network", "value"]].itertuples(index=False)
    return known.assign(learning_rate=[published_rate("purchases", *pair) for pair in pairs])


def published_rate(data: str, network: str, value: Shaping) -> float:
    """The learning rate at which the paper trains."""
    protocol = PROTOCOLS[data, network]
    return protocol.dp_learning_rate if value.defended else protocol.learning_rate


def in_order(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """A frame sorted by columns: undefended and the larger rates and epochs first, names as in ORDERS."""

    def rank(column: pd.Series) -> pd.Series:
        if column.name in ("learning_rate", "epochs"):
            return -column
        if column.name not in ORDERS:
            return column.replace(np.inf, -1)
        others = sorted(set(column) - set(ORDERS[column.name]))  # a user's own, behind those of the paper
        return column.map([*ORDERS[column.name], *others].index)

    return frame.sort_values(columns, key=rank)


def by_kind(column: pd.Series) -> pd.Series:
    """Undefended, then the kinds in the order in which they are registered; other columns as they are."""
    if column.name != "shaping":
        return column
    known = list(KINDS)

    def place(text: str) -> tuple:
        name = text.split(":")[0].split("@")[0].split("+")[0]
        plain = "clip" if name[0].isdigit() else name
        number = known.index(plain) if plain in known else -1 if name == UNDEFENDED_TEXT else len(known)
        return ("@" in text, "+" in text, number, text)

    order = {text: number for number, text in enumerate(sorted(column.unique(), key=place))}
    return column.map(order)


def over_seeds(groups, columns: list[str]) -> pd.DataFrame:
    """Mean of each column, to four digits, and half the width of its 95% interval (Student's t; from three values)."""
    frame = {}
    for column in columns:
        values, count = groups[column], groups[column].count()
        interval = stats.t.ppf(0.975, (count - 1).clip(lower=1)) * values.std() / np.sqrt(count)
        frame[f"{column}_mean"] = values.mean().map(lambda mean: round(mean, 4))
        frame[f"{column}_ci95"] = interval.round(4).where(count >= 3)
    return pd.DataFrame(frame)


def wilson(successes: float, trials: float) -> tuple[float, float]:
    """The 95% interval of a share by Wilson's score; NaN without trials."""
    if not trials > 0:
        return np.nan, np.nan
    interval = stats.binomtest(int(successes), int(trials)).proportion_ci(method="wilson")
    return interval.low, interval.high


def add_share(frame: pd.DataFrame, name: str, hits: str, trials: str) -> None:
    """Add the columns `name`, a share to four digits, and <name>_low and <name>_high, its Wilson interval."""
    frame[name] = (frame[hits] / frame[trials]).round(4)
    ends = np.array([wilson(*pair) for pair in zip(frame[hits], frame[trials])]).round(4)
    frame[[f"{name}_low", f"{name}_high"]] = ends


def sources(names: pd.Series) -> str:
    """The files that several rows come from, each once."""
    return "; ".join(dict.fromkeys(name for text in names for name in text.split("; ")))
