"""What the figures show: the numbers of small tables, drawn where they belong."""

from __future__ import annotations

import types

import matplotlib.colors
import numpy as np
import pandas as pd
import pytest

from reports import Table, figures, gradient_figures, matrix_page, poison_pictures, targeted_figures
from reports.reading import QUANTILES, Part
from results import layout, plotting

NAN = float("nan")


@pytest.fixture(autouse=True)
def closed():
    yield
    plotting.plt.close("all")


def table(name: str, lines: list[dict]) -> Table:
    frame = pd.DataFrame(lines)
    return Table(name, list(frame), frame)


def drawn(axis) -> dict[str, tuple]:
    """The lines of a panel that have a label, by it: x and y."""
    lines = {line.get_label(): line for line in axis.get_lines() if not line.get_label().startswith("_")}
    return {label: (line.get_xdata().tolist(), pytest.approx(list(line.get_ydata()))) for label, line in lines.items()}


def filled(axis) -> list[tuple]:
    """The filled bands of a panel: x, low and high."""
    found = []
    for band in axis.collections:
        points = band.get_paths()[0].vertices
        places = sorted(set(points[:, 0]))
        ends = [[end(points[points[:, 0] == place, 1]) for place in places] for end in (np.min, np.max)]
        found.append((places, *map(pytest.approx, ends)))
    return found


def marks(axis) -> list[tuple]:
    """The points of a panel without a label or a line between them."""
    return [
        (list(line.get_xdata()), list(line.get_ydata()))
        for line in axis.get_lines()
        if line.get_label().startswith("_") and line.get_linestyle() == "None"
    ]


def texts(axis) -> list[str]:
    return [text.get_text() for text in axis.texts]


def ticks(axis) -> tuple[list[str], list[str]]:
    return tuple([label.get_text() for label in those] for those in (axis.get_xticklabels(), axis.get_yticklabels()))


# --- sweeps ---


def sweep(**more) -> dict[str, Table]:
    """Two shapings at two ratios, one with three seeds at one of them."""
    line = {"attack": "label-flips", "noise_multiplier": 0.0, "baseline_acc": 0.955, "published_best_acc": NAN} | more
    lines = [
        {"ratio": 0.1, "shaping": "undefended", "clip_norm": np.inf, "best_acc": 0.94, "final_acc": 0.90},
        {"ratio": 0.4, "shaping": "undefended", "clip_norm": np.inf, "best_acc": 0.80, "final_acc": 0.70},
        {"ratio": 0.1, "shaping": "1", "clip_norm": 1.0, "best_acc": 0.95, "final_acc": 0.93},
        {
            "ratio": 0.4,
            "shaping": "1",
            "clip_norm": 1.0,
            "best_acc": 0.93,
            "final_acc": 0.91,
            "published_best_acc": 0.9,
        },
        {
            "ratio": 0.4,
            "shaping": "1:0.1",
            "clip_norm": 1.0,
            "best_acc": 0.5,
            "final_acc": 0.4,
            "noise_multiplier": 0.1,
        },
        {"ratio": 0.4, "shaping": "4", "clip_norm": 4.0, "best_acc": 0.1, "final_acc": 0.1, "source": None},
    ]
    seeds = {"ratio": 0.4, "shaping": "undefended", "seeds": 5, "final_acc_mean": 0.72, "final_acc_ci95": 0.05}
    return {
        "indiscriminate": table("indiscriminate", [{**line, "source": "", **one} for one in lines]),
        "seeds": table("seeds", [{"attack": line["attack"], **seeds}]),
    }


def test_a_sweep_is_drawn_by_ratio_over_seeds_where_there_are_any():
    best, last = figures.draw_indiscriminate("label-flips", sweep(), None).axes
    assert drawn(best) == {"undefended": ([0.1, 0.4], [0.94, 0.80]), "clip norm 1": ([0.1, 0.4], [0.95, 0.93])}
    assert drawn(last) == {"undefended": ([0.1, 0.4], [0.90, 0.72]), "clip norm 1": ([0.1, 0.4], [0.93, 0.91])}
    assert marks(best) == [([], []), ([0.4], [0.9])]  # published
    assert filled(last) == [([0.1, 0.4], [0.90, 0.67], [0.90, 0.77]), ([0.1, 0.4], [0.93, 0.91], [0.93, 0.91])]
    for axis in (best, last):
        assert axis.get_ylim() == (pytest.approx(axis.get_ylim()[0]), pytest.approx(0.96))
        assert axis.get_ylim()[0] <= 0.67 and ticks(axis)[0] == ["0.1", "0.4"]
        assert [list(line.get_ydata()) for line in axis.get_lines()][-1] == [0.955, 0.955]  # the baseline
    assert figures.draw_indiscriminate("slabs", sweep(), None) is None


def test_the_heat_map_has_the_clip_norms_below_each_other_and_the_noise_beside():
    figure = figures.draw_heat_map(sweep(), None)
    axis, _ = figure.axes  # and the bar of colours
    shown, row = np.array(axis.images[0].get_array().filled(np.nan)), figures.CLIP_NORMS.index(1)
    stds = sorted(figures.NOISE_STDS)
    expected = np.full((len(figures.CLIP_NORMS), 1 + len(stds)), np.nan)
    expected[:, 0], expected[row, 1 + stds.index(0)] = 0.72, 0.91
    if 0.1 in stds:
        expected[row, 1 + stds.index(0.1)] = 0.4
    assert (
        np.allclose(shown, expected, equal_nan=True)
        and axis.get_title() == "label-flips, ratio 0.4, mean of 1 to 5 seeds"
    )
    assert ticks(axis) == (["undefended", *(f"{std:g}" for std in stds)], [f"{norm:g}" for norm in figures.CLIP_NORMS])
    assert texts(axis).count("0.720") == len(figures.CLIP_NORMS) and "0.910" in texts(axis)
    assert figures.draw_heat_map(sweep(attack="minmax"), None) is None


def test_noise_is_drawn_by_its_standard_deviation_not_its_multiplier():
    std = sorted(figures.NOISE_STDS)[-1]
    tables, clip_norm = sweep(), float(figures.CLIP_NORMS[-1])
    line = {**tables["indiscriminate"].frame.iloc[4].to_dict(), "clip_norm": clip_norm}
    line |= {"noise_multiplier": std / clip_norm, "final_acc": 0.123, "source": ""}
    tables["indiscriminate"] = table("indiscriminate", [line])
    shown = figures.draw_heat_map(tables, None).axes[0].images[0].get_array().filled(np.nan)
    assert np.argwhere(shown == 0.123).tolist() == [[len(figures.CLIP_NORMS) - 1, len(figures.NOISE_STDS)]]


def test_the_matrix_is_drawn_in_points_adaptive_columns_last():
    line = {"chosen": True, "dataset": layout.SUBTASK, "network": "lr", "adaptive": "", "shaping": "1", "seeds": 10}
    lines = [
        {"column": "own", "adaptive": "own", "gain_mean": 0.2},
        {"column": "flips", "gain_mean": -0.015},
        {"column": "flips", "gain_mean": 0.07, "shaping": "phuber:2"},
        {"column": "flips", "gain_mean": 0.5, "shaping": "undefended"},
        {"column": "flips", "gain_mean": 0.5, "shaping": "gce:0.7", "chosen": False},
        {"column": "flips", "gain_mean": 0.5, "shaping": "4", "network": "shallow-mlp"},
    ]
    lines = [{**line, **one} for one in lines]
    axis = figures.draw_matrix({"matrix": table("matrix", lines)}, None).axes[0]
    assert ticks(axis) == (["flips", "own"], ["clip norm 1", "phuber:2"])
    assert sorted(texts(axis)) == ["+20.0", "+7.0", "-1.5", "adaptive attacks", "oblivious attacks"]
    at = {
        text.get_text(): (*text.get_position(), text.get_color())
        for text in axis.texts
        if "attacks" not in text.get_text()
    }
    assert at == {"-1.5": (0, 0, "black"), "+20.0": (1, 0, "white"), "+7.0": (0, 1, "white")}
    others = [{**one, "dataset": "purchases-cj"} for one in lines]
    assert ticks(figures.draw_matrix({"matrix": table("matrix", others)}, None).axes[0])[1] == [
        "clip norm 1",
        "phuber:2",
        "clip norm 4",
    ]
    assert figures.draw_matrix({}, None) is None
    assert figures.draw_matrix({"matrix": table("matrix", lines[3:5])}, None) is None


# --- gradients ---


def test_single_rows_are_drawn_as_quantiles_clean_above_poison():
    rows = [
        {"analysis": "collision", "set": "pairs_of_100", "setting": "alpha_10", "network": "lr", "cell": 0},
        {"analysis": "collision", "set": "pairs_of_100", "setting": "alpha_9", "network": "shallow-mlp", "cell": 1},
        {"analysis": "collision", "set": "multi", "setting": "alpha_9", "network": "lr", "cell": 1},
        {"analysis": "insertion", "set": "4", "setting": "4", "network": "badnet", "cell": 1, "patch": 7.0},
        {"analysis": "ipoisoning", "set": "slabs", "setting": "", "network": "lr", "cell": 1, "ratio": 0.4},
        {"analysis": "tpoisoning", "set": "", "setting": "mode", "network": "lr", "cell": 1},
        {
            "analysis": "ipoisoning",
            "set": "slabs",
            "setting": "",
            "network": "lr",
            "cell": 1,
            "median_example_ratio": NAN,
        },
    ]
    line = {"shaping": "undefended", "median_example_ratio": 2.0, "source": "", "ratio": NAN, "patch": NAN}
    tables = {
        "gradients": table("gradients", [{**line, **row} for row in rows]),
        "nulls": table("nulls", [{"measure": "median_example_ratio", "draws": 20, "cell": 0, "null_low": 0.5,
                                  "null_high": 3.0, "source": ""}]),
    }  # fmt: skip
    epochs = [np.arange(1, 16) * scale for scale in (1, 2, 6)]  # of which the median is that of the second
    lines = pd.DataFrame(epochs * 2, [0, 0, 0, 1, 1, 1], QUANTILES)
    lines.loc[1] += 100
    axis = figures.draw_examples(tables, types.SimpleNamespace(analyses=Part(None, lines))).axes[0]
    labels = ticks(axis)[1]
    assert len(labels) == 5 and labels[::-1] == sorted(labels, key=layout.natural_order)
    assert set(labels) == {
        "watermark, alpha 10, logistic regression", "watermark, alpha 9, shallow MLP", "patch 7, BadNet",
        "slabs 0.4, logistic regression", "targeted, mode, logistic regression",
    }  # fmt: skip
    place = labels.index("watermark, alpha 10, logistic regression")
    found = [(list(line.get_xdata()), {round(y, 2) for y in line.get_ydata()}) for line in axis.get_lines()]
    found = {tuple(x): y.pop() for x, y in found if abs(min(y) - place) < 0.3}
    clean, poison = place + 0.18, place - 0.18
    assert found == {
        (2, 10): clean, (4, 8): clean, (6,): clean, (12, 20): poison, (14, 18): poison, (16,): poison,
        (3, 18): poison,  # duplicates: 0.5 to 3 times the clean median
    }  # fmt: skip
    tables["gradients"].frame["median_example_ratio"] = NAN
    assert figures.draw_examples(tables, None) is None


def gradient_rows() -> list[dict]:
    """A row of the table for each line of the figure; three were run."""
    line = {"planned": True, "shaping": "undefended", "source": None, "cell": -1}
    rows = [{"network": network, "set": "pairs_of_100", "setting": f"alpha_{alpha}"}
            for network in ("lr", "shallow-mlp") for alpha in (0.1, 0.4, 1.0)]  # fmt: skip
    rows += [{"network": "badnet", "set": "4", "setting": f"4_0.01_{patch}"} for patch in (1, 4, 10)]
    rows += [{"network": "lr", "set": name, "setting": ""} for name in ("label-flips", "slabs")]
    rows[1] |= {"source": "", "cell": 7}
    rows[10] |= {"source": "", "cell": 8}
    return [{**line, **row} for row in rows] + [{**line, **rows[1], "shaping": "1", "cell": 9}]


def test_gradients_are_drawn_by_epoch_beside_the_published_and_duplicates(monkeypatch):
    lines = pd.DataFrame({"clean_norm": [2.0, 4.0, 1.0], "poison_norm": [6.0, 4.0, 5.0], "cosine": [0.5, -0.5, 0.1]},
                         [7, 7, 8])  # fmt: skip
    known = pd.DataFrame({"row": [1, 1, 9], "clean_norm": [1.0] * 3, "poison_norm": [2.0, 3.0, 9.0],
                          "cosine": [0.0, 0.25, 1.0]})  # fmt: skip
    monkeypatch.setattr(gradient_figures, "published_lines", lambda rows, published: known)
    monkeypatch.setattr(gradient_figures.nulls, "matches", lambda draws, row: draws.set == row.set)
    bands = pd.DataFrame({"low": [0.9, 0.8], "high": [1.1, 1.3]}, [1, 2])
    monkeypatch.setattr(
        gradient_figures.nulls, "bands", lambda draws, name: bands * (1 if name == "norm_ratio" else 0.5)
    )
    results = types.SimpleNamespace(analyses=Part(None, lines), nulls=pd.DataFrame({"set": ["label-flips"] * 2}))
    tables = {"gradients": table("gradients", gradient_rows())}
    axes = np.reshape(figures.draw_gradients(tables, results).axes, (2, 4))
    ratios, cosines = ([drawn(axis) for axis in row] for row in axes)
    assert ratios == [{"alpha 0.4": ([1, 2], [3, 1])}, {}, {}, {"slabs": ([1], [5])}]
    assert cosines == [{"alpha 0.4": ([1, 2], [0.5, -0.5])}, {}, {}, {"slabs": ([1], [0.1])}]
    assert [marks(axis) for axis in axes[0]] == [[([1, 2], [2, 3])], [], [], [([1], [9])]]
    assert marks(axes[1, 0]) == [([1, 2], [0, 0.25])]
    assert [filled(axis) for axis in axes[0]] == [[], [], [], [([1, 2], [0.9, 0.8], [1.1, 1.3])]]
    assert filled(axes[1, 3]) == [([1, 2], [0.45, 0.4], [0.55, 0.65])]
    assert [axis.get_title() for axis in axes[0]][::3] == [
        "watermarks, logistic regression",
        "indiscriminate, logistic regression",
    ]
    tables["gradients"].frame["source"] = None
    assert figures.draw_gradients(tables, results) is None


def test_the_pictures_of_poisons_are_theirs(subtask, monkeypatch, tmp_path):
    random = np.random.default_rng(0)
    baskets = pd.DataFrame(random.integers(0, 2, (100, 3)), columns=["base_row", "target", "poison"])
    (tmp_path / "cell").mkdir()
    baskets.to_csv(tmp_path / "cell" / layout.POISON, index=False)
    monkeypatch.setattr(layout, "RESULTS", tmp_path)
    line = {"analysis": "tpoisoning", "shaping": "undefended", "source": "", "folder": "cell"}
    tables = {"gradients": table("gradients", [line])}
    axes = np.reshape(poison_pictures.draw(tables, None).axes, (5, 6))
    shown = [[np.array(axis.images[0].get_array()) if axis.images else None for axis in row] for row in axes]
    dress, coat = (subtask.x_train[subtask.y_train == label][0, ..., 0] for label in (0, 1))
    for alpha, picture in zip((0.1, 0.2, 0.4, 0.6, 0.8, 1.0), shown[0]):
        assert np.allclose(picture, (1 - alpha) * dress + alpha * coat, atol=1e-6)
    assert np.array_equal(shown[1][0], dress)
    for patch, picture in zip((1, 4, 7, 10, 14), shown[1][1:]):
        assert (picture[1 : 1 + patch, 1 : 1 + patch] == 1).all() and np.array_equal(picture[20:], dress[20:])
    assert len(poison_pictures.slabs(subtask)) == 4 and [one is None for one in shown[3]] == [False] * 4 + [True] * 2
    assert [text for axis in axes[3][:4] for text in axis.get_title().split()[2:4]].count("labelled") == 4
    base, target, poison, difference, *none = shown[4]
    for name, picture in zip(baskets, (base, target, poison)):
        assert np.array_equal(picture.reshape(-1), baskets[name])
    assert np.array_equal(difference, np.abs(poison - target)) and none == [None, None]
    baskets.iloc[:50].to_csv(tmp_path / "cell" / layout.POISON, index=False)  # a damaged one leaves its row out
    assert len(poison_pictures.draw(tables, None).axes) == 24


# --- targeted attacks ---


def dose(**more) -> dict:
    line = {"dataset": "purchases", "network": "lr", "within": layout.RETRAIN_EPOCHS, "shaping": "undefended"}
    line |= {"clip_norm": np.inf, "learning_rate": 0.04, "radius": 1.0, "share": 0.5, "share_low": 0.4, "targets": 40}
    return {**line, "share_high": 0.7, "matched": False, **more}


def test_doses_are_drawn_by_rate_and_kind():
    lines = [
        dose(), dose(radius=2.0, share=0.8, share_low=0.7, share_high=0.9, matched=True), dose(within=25, share=0.1),
        dose(shaping="1", clip_norm=1.0, learning_rate=0.08, share=0.3),
        dose(shaping="1", clip_norm=1.0, share=0.2), dose(shaping="phuber:2", clip_norm=NAN, share=0.6),
        dose(shaping="4", clip_norm=4.0, dataset="purchases-cj"), dose(shaping="4", clip_norm=4.0, network="mlp"),
        dose(shaping="gce:1", clip_norm=NAN, learning_rate=0.08),
        dose(shaping="2", clip_norm=2.0, learning_rate=0.02),
    ]  # fmt: skip
    figure = figures.draw_doses({"doses": table("doses", lines)}, None)
    alone = {"undefended": ([1.0, 2.0], [50, 80])}
    assert [drawn(axis) for axis in figure.axes] == [
        {**alone, "clip norm 1": ([1.0], [30]), "clip norm 2": ([1.0], [50])}, {**alone, "clip norm 1": ([1.0], [20])},
        {**alone, "phuber:2": ([1.0], [60])},
    ]  # fmt: skip
    for axis in figure.axes:
        assert filled(axis)[0] == ([1.0, 2.0], [40, 70], [70, 90]) and ticks(axis)[0] == ["1", "2"]
        assert [list(line.get_xdata()) for line in axis.get_lines()][-1] == [2.0, 2.0]  # the matched dose
    assert figures.draw_doses({}, None) is None
    assert figures.draw_doses({"doses": table("doses", lines[2:3])}, None) is None


def test_targets_are_bars_beside_the_published():
    line = {"network": "lr", "mode": "oneshot", "targets": 40, "source": "", "published_successes": NAN}
    lines = [
        {"shaping": "undefended", "learning_rate": 0.04, "epochs": 50, "successes": 30, "published_successes": 80},
        {"shaping": "undefended", "learning_rate": 0.04, "epochs": 25, "successes": 20},
        {"shaping": "4", "learning_rate": 0.1, "epochs": 50, "successes": 1},  # of no bar
        {"shaping": "4", "learning_rate": 0.08, "epochs": 50, "successes": 10, "mode": "multipoison"},
        {"shaping": "1", "learning_rate": 0.08, "epochs": 50, "source": None, "published_successes": 60},
        {"shaping": "0.1", "learning_rate": 0.08, "epochs": 40, "successes": 40},
    ]
    one, several = figures.draw_targets(
        {"tpoisoning": table("tpoisoning", [{**line, **row} for row in lines])}, None
    ).axes
    bars = [[(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in axis.patches] for axis in (one, several)]
    assert bars[0] == [(pytest.approx(-0.19), 75), (pytest.approx(0.19), 50)] and texts(one) == ["75", "50"]
    assert bars[1][0] == (pytest.approx(3.81), 25) and len(bars[1]) == 3  # and two of the legend
    assert marks(several) == [([], [])]  # likewise
    assert marks(one) == [([pytest.approx(-0.19)], [80]), ([pytest.approx(2.81)], [60])]
    dark, light = (matplotlib.colors.to_hex(bar.get_facecolor()) for bar in one.patches)
    assert dark < light and ticks(one)[0][:2] == ["undefended", "clip norm\n0.1"]
    none = [{**line, **row, "source": None} for row in lines]
    assert figures.draw_targets({"tpoisoning": table("tpoisoning", none)}, None) is None


def test_poisons_needed_are_a_share_of_all_targets(monkeypatch):
    line = {"mode": "multipoison", "network": "lr", "shaping": "undefended", "clip_norm": np.inf, "epochs": 50,
            "noise_multiplier": 0.0, "at_rate": True}  # fmt: skip
    lines = [{"needed": needed} for needed in (1, 2, 2, NAN)]
    lines += [
        {"needed": 4.0, "epochs": 25},
        {"needed": 3, "shaping": "4:0.5", "clip_norm": 4.0, "noise_multiplier": 0.5},
    ]
    lines += [{"needed": 9, "mode": "oneshot"}, {"needed": 9, "at_rate": False}, {"needed": 9, "network": "mlp"}]
    cells = pd.DataFrame([{**line, **one} for one in lines])
    monkeypatch.setattr(targeted_figures, "with_needed", lambda _: cells)
    monkeypatch.setattr(targeted_figures, "of_protocol", lambda cells: pd.Series(True, cells.index))
    results = types.SimpleNamespace(trials=None)
    axis = figures.draw_needed({}, results).axes[0]
    counts = [1, 2, 3, 4, 5]
    assert drawn(axis) == {
        "undefended, 25 epochs": (counts, [0, 0, 0, 100, 100]), "undefended, 50 epochs": (counts, [25, 75, 75, 75, 75]),
        "clip norm 4, noise 0.5, 50 epochs": (counts, [0, 0, 100, 100, 100]),
    }  # fmt: skip
    assert marks(axis)[0] == ([1.25, 2.25, 3.25, 4.25], [0, 0, 0, 100])  # beside the others', on the same steps
    dashed = {line.get_label(): line.get_linestyle() for line in axis.get_lines()}
    assert dashed["undefended, 25 epochs"] == "--" and dashed["undefended, 50 epochs"] == "-"
    monkeypatch.setattr(targeted_figures, "with_needed", lambda _: cells[cells["mode"] == "oneshot"])
    assert figures.draw_needed({}, results) is None


# --- certificates ---


def test_certificates_are_drawn_between_what_is_proven_and_what_attacks_reach():
    setting = {"dataset": layout.SUBTASK, "certificate": "stability", "learning_rate": 0.1, "epochs": 5,
               "batch_size": 300, "shaping": "1", "network": "lr", "optimizer": "sgd", "decay": 1.0}  # fmt: skip
    attacked = [
        {**setting, "poisons": count, "seeds": 3, "certified_acc": low, "attacked_acc": high, "clean_acc": 0.95}
        for count, low, high in ((10, 0.9, 0.94), (50, 0.6, 0.9), (100, 0.2, 0.8))
    ]
    attacked += [{**attacked[0], "learning_rate": 0.2, "certified_acc": 0.7}, {**attacked[0], "dataset": "other"}]
    lines = [
        {"clean_acc": 0.95, "certified_at_10": 0.9, "certified_at_50": 0.6, "best_at": "10"},
        {"clean_acc": 0.90, "certified_at_10": 0.8, "certified_at_50": 0.7, "best_at": "50 100"},
        {"clean_acc": 0.80, "certified_at_10": 0.6, "certified_at_50": 0.5, "best_at": None},
        {"clean_acc": 0.85, "certified_at_10": 0.85, "certified_at_50": 0.1, "best_at": "10", "certificate": "noisy"},
    ]
    settings = [{**setting, "spread": 1, "certified_at_100": 0.3, **line} for line in lines]
    tables = {"certificates_attacked": table("a", attacked), "certificates": table("b", settings)}
    (first, second, _, best, *others) = figures.draw_certificates(tables, None).axes
    counts = [10, 50, 100]
    assert drawn(first) == {"worst attack": (counts, [0.94, 0.9, 0.8]), "certified": (counts, [0.9, 0.6, 0.2])}
    assert filled(first) == [(counts, [0.9, 0.6, 0.2], [0.94, 0.9, 0.8])]
    assert drawn(second) == {"worst attack": ([10], [0.94]), "certified": ([10], [0.7])}
    assert first.get_title() == "clip norm 1, rate 0.1, 5 epochs, 3 seeds"
    assert second.get_title() == "clip norm 1, rate 0.2, 5 epochs, 3 seeds"
    assert first.get_ylim() == best.get_ylim() == (-0.03, 1)
    found = {label: [(x, y) for x, y in zip(*ends) if y == y] for label, ends in (
        (line.get_label(), (list(line.get_xdata()), list(line.get_ydata()))) for line in best.get_lines())}  # fmt: skip
    assert found == {"stability": [(10, 0.9), (50, 0.7), (100, 0.3)], "noisy": [(10, 0.85)]}
    assert [axis.get_title() for axis in others] == [
        f"every setting, {count} substituted rows, seed 215" for count in (10, 50)
    ]
    assert drawn(others[0]) == {
        "noisy": ([0.85], [0.85]), "stability": ([0.95, 0.90, 0.80], [0.9, 0.8, 0.6]),
        "envelope": ([0.80, 0.85, 0.90, 0.95], [0.9, 0.9, 0.9, 0.9]),
    }  # fmt: skip
    assert drawn(others[1])["envelope"] == ([0.80, 0.85, 0.90, 0.95], [0.7, 0.7, 0.7, 0.6])
    assert all(axis.get_ylim() == (-0.03, 1) and axis.get_xlabel() == "clean accuracy" for axis in others)
    assert figures.draw_certificates({"certificates": tables["certificates"]}, None) is None


# --- the page of the matrix ---


def test_price_and_protection_are_drawn_in_a_panel_for_each_attacked_column(monkeypatch):
    kept, panels = [], plotting.panels
    monkeypatch.setattr(plotting, "panels", lambda *given, **more: kept.append(panels(*given, **more)) or kept[-1])
    shown = [types.SimpleNamespace(text=name, group=group, measure="accuracy") for name, group in (
        ("none", matrix_page.CLEAN), ("flips 0.1", matrix_page.OBLIVIOUS), ("slabs 0.1", matrix_page.OBLIVIOUS),
        ("lost", matrix_page.OBLIVIOUS), ("own 0.1", matrix_page.ADAPTIVE), ("other 0.1", matrix_page.ADAPTIVE),
    )]  # fmt: skip
    rows = pd.DataFrame({"shaping": ["1", "4", "bad"], "clean_price_mean": [0.01, 0.03, NAN],
                         "clean_price_ci95": [0.002, NAN, NAN]})  # fmt: skip
    names = [("1", 0.2, True), ("4", -0.1, False), ("bad", 0.5, True)]
    cells = [(text, column.text, gain, chosen, 0.05) for text, gain, chosen in names for column in shown]
    cells = pd.DataFrame(cells, columns=["shaping", "column", "gain_mean", "chosen", "gain_ci95"])
    cells = cells[cells.column != "lost"]
    assert len(matrix_page.picture(shown, cells, rows)) > 5000
    ((figure, axes),) = kept
    assert axes.shape == (2, 3) and [axis.get_visible() for axis in axes.flat] == [True] * 4 + [False] * 2
    titles = ["flips 0.1", "slabs 0.1", "own 0.1", "other 0.1"]
    assert [axis.get_title().partition(" (")[0] for axis in axes.flat[:4]] == titles
    for axis in axes.flat[:4]:
        points = [
            (list(line.get_xdata()), list(line.get_ydata())) for line in axis.get_lines() if line.get_marker() == "o"
        ]
        assert points == [([3], [-10]), ([1], [20])] and texts(axis) == ["1"]
        assert all(place in matrix_page.TICKS for place in axis.get_xticks())
    assert matrix_page.picture(shown[:1], cells, rows) == "" == matrix_page.picture(shown[3:4], cells, rows)
    plotting.plt.close(figure)


def test_what_cells_say_lies_behind_what_their_row_says(monkeypatch):
    monkeypatch.setattr(matrix_page, "row_detail", lambda row: f"row {row.shaping}")
    monkeypatch.setattr(matrix_page, "cell_detail", lambda text, column, cell: (text, column.text, cell and cell.gain))
    monkeypatch.setattr(matrix_page, "shown_cell", lambda cell: {"gain": cell and cell.gain})
    monkeypatch.setattr(matrix_page, "summary", lambda row: [])
    shown = [types.SimpleNamespace(text=name) for name in ("flips", "slabs")]
    cells = pd.DataFrame({"shaping": ["1", "undefended"], "column": ["slabs", "flips"], "gain": [0.5, 0.0]})
    details = ["before"]
    rows = [types.SimpleNamespace(shaping=text, kind=text, chosen=False) for text in ("undefended", "1")]
    first, second = (matrix_page.line(row, shown, cells, details) for row in rows)
    assert details == ["before", "row undefended", ("undefended", "flips", 0.0), ("undefended", "slabs", None),
                       "row 1", ("1", "flips", None), ("1", "slabs", 0.5)]  # fmt: skip
    assert (first["detail"], second["detail"], first["chosen"], second["chosen"]) == (1, 4, True, False)
    assert first["cells"] == [{"detail": 2, "gain": 0.0}, {"detail": 3, "gain": None}]
    assert [cell["detail"] for cell in second["cells"]] == [5, 6]
