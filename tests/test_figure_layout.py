"""What the figures look like, measured on the drawn ones: nothing overlaps or is cut off, and looks mean one thing."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from drawn import faults
from test_analyze_gradients import write_epochs
from test_figures import dose, sweep, table

import analyze_gradients
from files import below, write_json
from reports import figures, targeted_figures
from results import layout, plotting, words

OWN = ["my-own-kind-of-shaping:0.123456789:0.5", *(f"another-{number}:{number / 7:.6f}" for number in range(9))]
COUNTED = ("epoch", "poisons together, at most", "substituted rows")  # axes of whole numbers


@pytest.fixture(autouse=True)
def closed():
    yield
    plotting.plt.close("all")


# --- the measure itself ---


def sound():
    """A figure without a fault."""
    figure, axes = plotting.panels(2)
    for axis in axes.flat:
        axis.plot([1, 2, 3], [1, 3, 2], label="a line")
        axis.set(title="a title", xlabel="epoch", ylabel="norm")
        axis.set_xticks([1, 2, 3], ["0.0001", "0.0002", "0.0003"], rotation=60)
        plotting.legend_under(axis)
    plotting.note(figure, "a note")
    return figure


BROKEN = {  # what is done to it, and a part of what is found
    "ticks": (lambda figure: figure.axes[0].set_xticks([1, 1.05], ["0.00001", "0.00002"]), "'0.00001' overlaps '0.000"),
    "turned": (
        lambda figure: figure.axes[0].set_xticks([1, 1.02], ["0.01", "0.02"], rotation=60), "'0.01' overlaps '0.02'",
    ),
    "titles": (lambda figure: figure.axes[0].set_title("word " * 30), "overlaps 'a title'"),
    "annotation": (lambda figure: figure.axes[0].annotate("here", (0, 0.98), xycoords="axes fraction", va="bottom",
                                                          fontsize=40), "'here' overlaps"),
    "wide legend": (
        lambda figure: figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center",
                                     title="word " * 40), "legend of 'a line' lies beyond the canvas",
    ),
    "legend on data": (lambda figure: figure.axes[0].legend(loc="upper center"), "legend of 'a line' covers 'a line'"),
    "legend on text": (
        lambda figure: figure.axes[0].legend(loc="center", bbox_to_anchor=(0.5, 0)), "overlaps legend of 'a line'",
    ),
    "low label": (
        lambda figure: (figure.set_layout_engine("none"), figure.axes[0].set_position([0.1, 0, 0.3, 0.8])),
        "'epoch' lies beyond the canvas",
    ),
    "panel": (
        lambda figure: (figure.set_layout_engine("none"), figure.axes[0].set_position([-0.1, 0.3, 0.3, 0.5])),
        "a panel lies beyond the canvas",
    ),
}  # fmt: skip


def test_nothing_is_found_in_a_sound_figure():
    assert faults(sound()) == []


@pytest.mark.parametrize("fault", BROKEN)
def test_what_is_wrong_is_found(fault):
    figure, (spoil, expected) = sound(), BROKEN[fault]
    spoil(figure)
    found = faults(figure)
    assert any(expected in one for one in found), found


def test_a_figure_that_matplotlib_lays_out_badly_by_itself_is_found():
    """The legend of the targeted analyses as it once was: in one row, whatever it says."""
    figure, _ = plotting.panels(3, 2)
    for name in OWN[:4]:
        figure.axes[0].plot([1], [1], label=f"dp_lr_100_100_{name}")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=7, fontsize=8)
    assert any("beyond the canvas" in one for one in faults(figure))
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legends.clear()
    plotting.legend_below(figure, handles, labels)
    assert faults(figure) == []


# --- looks ---


def test_a_shaping_has_one_look_and_no_other_has_it():
    looks = plotting.shaping_looks([*plotting.SHAPINGS, *OWN])
    marked = [(look["color"], look["marker"]) for look in looks.values()]
    markers = {marker for _, marker in plotting.SHAPINGS.values()}
    assert len(set(marked)) == len(looks)
    assert len(markers) == len(plotting.SHAPINGS)  # so that those can be told apart in grey
    for text in (*plotting.SHAPINGS, OWN[0]):  # alone as in company
        assert plotting.shaping_looks([text])[text] == plotting.shaping_looks(["4", "1", text, *OWN[1:2]])[text]


def test_many_shapings_of_a_users_own_still_are_drawn():
    texts = [f"own:{number}" for number in range(200)]
    assert list(plotting.shaping_looks(texts)) == texts


def test_ordered_quantities_go_from_dark_to_light():
    lightness = [np.dot(look["color"][:3], (0.299, 0.587, 0.114)) for look in plotting.shades(6)]
    assert lightness == sorted(lightness) and lightness[0] < 0.2 < 0.6 < lightness[-1] < 0.8
    assert len(plotting.shades(1)) == 1


# --- words ---


def test_settings_are_said_in_words():
    assert words.shaping("4") == words.shaping("clip:4") == "clip norm 4"
    assert words.shaping("4:0.0025") == "clip norm 4, noise 0.0025" and words.shaping("1e-05") == "clip norm 1e-05"
    for text in ("undefended", "phuber:2", "phuber:2+clip:1", "clip:1@5,phuber:2", "clip:1:2:3"):
        assert words.shaping(text) == text
    assert [words.counted(numbers, "seed") for numbers in ([1], [10, 10], [5.0, 21.0])] == [
        "1 seed", "10 seeds", "5 to 21 seeds",
    ]  # fmt: skip
    settings = {
        "attack": "collision", "poison": {"task": "pairs_of_100", "alpha": 0.4}, "network": "shallow-mlp",
        "shaping": "4", "seed": 215, "noise_std": 0.0,
    }  # fmt: skip
    said = words.training(settings)
    assert ", ".join(said.values()) == "watermarks, pairs of 100, alpha 0.4, shallow MLP, clip norm 4, seed 215"
    other = words.training({**settings, "shaping": "undefended", "epochs": 40})
    common, own = words.in_common([said, other])
    assert common == "watermarks, pairs of 100, alpha 0.4, shallow MLP, seed 215"
    assert own == ["clip norm 4", "undefended, 40 epochs"] and words.training({}) == {}


# --- small figures, and crowded ones ---


def analysed(folder, epochs: int = 3, **settings):
    """A reduced analysis with these settings in its run.json; none without any."""
    write_epochs(folder, epochs)
    if settings:
        write_json(folder / layout.RUN, {"settings": settings, "results": {}})
    analyze_gradients.reduce(folder, [dict(np.load(folder / f"param_updates/{n}.npz")) for n in range(1, epochs + 1)])
    return folder


def labels(figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_analyses_are_called_by_their_settings(tmp_path):
    common = {"attack": "clean-labels", "target": 2, "network": "lr", "seed": 215}
    folders = [
        analysed(tmp_path / "x1", shaping="undefended", learning_rate=0.04, **common),
        analysed(tmp_path / "x2", shaping="4", learning_rate=0.08, **common),
    ]
    figure = analyze_gradients.draw(folders)
    assert labels(figure) == ["undefended, learning rate 0.04", "clip norm 4, learning rate 0.08"]
    assert figure.get_suptitle() == "targeted poisons, target 2, logistic regression, seed 215"
    looks = plotting.shaping_looks(["undefended", "4"]).values()
    lines = figure.axes[0].get_lines()
    assert [(line.get_color(), line.get_marker()) for line in lines] == [(one["color"], one["marker"]) for one in looks]
    assert faults(figure) == []


def test_analyses_without_settings_are_called_by_their_folders(tmp_path):
    folders = [analysed(tmp_path / name) for name in ("one", "other")]
    assert labels(analyze_gradients.draw(folders)) == ["one", "other"]
    alone = analyze_gradients.draw([analysed(tmp_path / "alone", epochs=1)])
    assert labels(alone) == [] and alone.get_suptitle() == "alone" and faults(alone) == []


def test_a_legend_of_long_names_takes_more_rows(tmp_path):
    names = [f"{text}+clip:0.000001@12,median-of-means:10" for text in OWN]
    folders = [analysed(tmp_path / str(n), shaping=name, seed=n, epochs=2) for n, name in enumerate(names)]
    figure = analyze_gradients.draw(folders)
    assert len(labels(figure)) == len(OWN) and faults(figure) == []


def test_crowded_figures_have_no_faults(monkeypatch):
    more = [dose(shaping=text, clip_norm=np.nan, radius=radius) for text in OWN[:7] for radius in (0.5, 1.0, 2.0, 64.0)]
    doses = {"doses": table("doses", [dose(), dose(radius=2.0, matched=True), *more])}
    needed = [
        {"needed": count, "shaping": text, "epochs": epochs}
        for text in ("undefended", *OWN[:4]) for epochs in (25, 50) for count in (1, 30)
    ]  # fmt: skip
    line = {"mode": "multipoison", "network": "lr", "clip_norm": np.inf, "noise_multiplier": 0.0, "at_rate": True}
    cells = pd.DataFrame([{**line, **one} for one in needed])
    monkeypatch.setattr(targeted_figures, "with_needed", lambda _: cells)
    monkeypatch.setattr(targeted_figures, "of_protocol", lambda cells: pd.Series(True, cells.index))
    cell = {"chosen": True, "dataset": layout.SUBTASK, "network": "lr", "adaptive": "", "seeds": 10, "gain_mean": 0.123}
    matrix = [
        {**cell, "shaping": text, "column": name} for text in OWN for name in ("a-long-name-of-an-attack 0.123", "x")
    ]
    results = type("Results", (), {"trials": None})
    for figure in (
        figures.draw_doses(doses, results), figures.draw_needed({}, results),
        figures.draw_matrix({"matrix": table("matrix", matrix)}, results),
        figures.draw_matrix({"matrix": table("matrix", matrix[:1])}, results),
        figures.draw_indiscriminate("label-flips", sweep(), results), figures.draw_heat_map(sweep(), results),
    ):  # fmt: skip
        assert faults(figure) == []


# --- all that can be drawn of the results that are here ---


@pytest.fixture(scope="module")
def drawn(kept_report):
    """Every figure of report.py and of analyze_gradients.py by name, of the results that are here."""
    workplace, _ = kept_report
    kept = {path.stem: pickle.loads(path.read_bytes()) for path in (workplace.folder / "drawn").iterdir()}
    folders = [path.parent for path in below(layout.ANALYSIS)[0] if path.name == layout.MAGNITUDES]
    for path in sorted({layout.gradients_figure(folder) for folder in folders}):
        name = str(path.relative_to(layout.ANALYSIS))
        kept[name] = analyze_gradients.draw(analyze_gradients.members(path))
    return kept


@pytest.mark.slow
def test_every_figure_is_without_faults(drawn):
    assert len(drawn) >= 24, sorted(drawn)
    found = {name: faults(figure)[:5] for name, figure in drawn.items()}
    assert {name: some for name, some in found.items() if some} == {}


@pytest.mark.slow
def test_a_shaping_looks_alike_in_every_figure(drawn):
    seen = {}
    for figure in drawn.values():
        for line in (line for axes in figure.axes for line in axes.get_lines()):
            name = line.get_label().removesuffix(", 50 epochs").removesuffix(", 25 epochs").split(", learning rate")[0]
            if name.startswith(("undefended", "clip norm", "phuber", "gce", "centered-clip")):
                seen.setdefault(name, set()).add((line.get_color(), line.get_marker()))
    assert len(seen) >= 10 and {name: looks for name, looks in seen.items() if len(looks) > 1} == {}
    assert len(set.union(*seen.values())) == len(seen)


@pytest.mark.slow
def test_counts_have_whole_ticks_bars_of_colours_a_label_and_figures_their_seeds(drawn):
    for name, figure in drawn.items():
        for axes in figure.axes:
            if axes.get_xlabel() in COUNTED:
                assert all(float(place).is_integer() for place in axes.get_xticks()), name
            assert axes.get_label() != "<colorbar>" or axes.get_ylabel(), name
        said = [figure.get_suptitle(), *(axes.get_title() for axes in figure.axes)]
        said += [axes.get_ylabel() for axes in figure.axes]
        assert any("seed" in text for text in said) or name == "poisons" or name.startswith("price"), (name, said)
