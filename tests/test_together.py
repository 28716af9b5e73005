"""Poisons that are crafted together: the formulas on small problems, the budgets, and what the commands refuse."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY, refused

from models import device

device.start()

import reports.together  # noqa: E402
from models import networks  # noqa: E402
from models.shaping import shaping  # noqa: E402
from poisons import shafahi, together  # noqa: E402
from poisons.together import Together  # noqa: E402

BUDGET = dataclasses.replace(shafahi.DOSED, radius=1.0, poisons=4)
WANTED = 1


@pytest.fixture(scope="module")
def small():
    """A logistic regression of 6 features and 3 classes, a target and four base rows."""
    model, random = networks.build("lr", (6,), 3, 3), np.random.default_rng(0)
    model.set_weights([random.normal(size=values.shape) for values in model.get_weights()])
    return model, random.random(6).astype(np.float32), random.random((4, 6)).astype(np.float32)


def softmax(logits):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def gradients(model, x):
    """Of each row under the wanted label, float64 [rows, parameters]."""
    kernel, bias = (values.astype(np.float64) for values in model.get_weights())
    deltas = softmax(x @ kernel + bias) - np.eye(3)[WANTED]
    return np.concatenate([(deltas[:, :, None] * x[:, None, :]).reshape(len(x), -1), deltas], 1)


def matching_loss(model, target, points, clip_norm=np.inf):
    aim, mine = gradients(model, target[None])[0], gradients(model, points)
    mine = mine * np.minimum(1, clip_norm / np.linalg.norm(mine, axis=1, keepdims=True))
    whole = mine.sum(0)
    return 1 - aim @ whole / np.linalg.norm(aim) / np.linalg.norm(whole)


def bullseye_loss(model, target, points):
    kernel, bias = (values.astype(np.float64) for values in model.get_weights())
    aim = target @ kernel + bias
    return np.linalg.norm(aim - (points @ kernel + bias).mean(0)) / np.linalg.norm(aim)


CASES = {
    "gradient-matching": ("undefended", matching_loss),
    "gradient-matching, clipped": ("0.3", lambda *given: matching_loss(*given, clip_norm=0.3)),
    "bullseye": ("undefended", bullseye_loss),
}


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient_are_those_of_the_formula(case, small):
    import tensorflow as tf

    model, target, base = small
    text, formula = CASES[case]
    crafter = Together(case.split(",")[0], model, shaping(text), WANTED, 1)
    loss_of, points = crafter.loss_of(tf.constant(target)), tf.constant(base)
    with tf.GradientTape() as tape:
        tape.watch(points)
        loss = loss_of(points)
    gradient = tape.gradient(loss, points).numpy()
    assert float(loss) == pytest.approx(formula(model, target.astype(np.float64), base.astype(np.float64)), rel=1e-4)
    differences = np.zeros(base.shape)
    for place in np.ndindex(*base.shape):
        step = np.zeros(base.shape)
        step[place] = 1e-6
        ends = [formula(model, target.astype(np.float64), base.astype(np.float64) + sign * step) for sign in (1, -1)]
        differences[place] = (ends[0] - ends[1]) / 2e-6
    assert np.allclose(gradient, differences, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_poisons_come_nearer_within_their_ball_and_box(case, small):
    model, target, base = small
    text, formula = CASES[case]
    crafter = Together(case.split(",")[0], model, shaping(text), WANTED, 1)
    budgets = [dataclasses.replace(BUDGET, radius=radius) for radius in (0.3, 1.0)]
    points, distances = crafter.craft(target, base, *budgets)
    assert points.shape == (8, 6) and points.min() >= 0 and points.max() <= 1 and len(distances) == 8
    losses = [
        formula(model, target.astype(np.float64), part.astype(np.float64)) for part in (base, points[:4], points[4:])
    ]
    assert losses[0] > losses[1] > losses[2]
    for part, radius in ((points[:4], 0.3), (points[4:], 1.0)):
        assert (np.linalg.norm(part - base, axis=1) <= radius * (1 + 1e-5)).all()


@pytest.mark.parametrize("case", CASES)
def test_the_points_of_least_loss_are_returned_with_it(case, small):
    import tensorflow as tf

    model, target, base = small
    text, formula = CASES[case]
    crafter = Together(case.split(",")[0], model, shaping(text), WANTED, 1)
    points, loss = crafter.descend(tf.constant(target), tf.constant(base), np.float32(3.0))
    reached = formula(model, target.astype(np.float64), points.numpy().astype(np.float64))
    assert float(loss) == pytest.approx(reached, rel=1e-3, abs=1e-5)
    assert reached < 0.02 * formula(model, target.astype(np.float64), base.astype(np.float64))


def test_points_that_were_better_before_are_returned_with_the_loss_that_they_had(small):
    """A loss that is one more wherever a point is moved, though its slope says that it falls."""
    import tensorflow as tf

    model, target, base = small
    crafter = Together("bullseye", model, shaping("undefended"), WANTED, 1)

    def loss(points):
        moved = tf.stop_gradient(tf.cast(tf.reduce_any(points != base), tf.float32))
        return moved - 1e-3 * tf.reduce_sum(points)

    crafter.loss_of = lambda _: loss
    points, reached = crafter.descend(tf.constant(target), tf.constant(base), np.float32(1.0))
    assert np.array_equal(points, base) and float(reached) == pytest.approx(-1e-3 * base.sum(), rel=1e-4)


def test_features_that_no_class_looks_at_stay_as_they_are(small):
    _, target, base = small
    model = networks.build("lr", (6,), 3, 3)
    kernel, bias = model.get_weights()
    kernel[2] = 0
    model.set_weights([kernel, bias])
    points, _ = Together("bullseye", model, shaping("undefended"), WANTED, 1).craft(target, base, BUDGET)
    assert np.allclose(points[:, 2], base[:, 2], atol=1e-6) and np.abs(points - base).max() > 0.1


def test_transferred_poisons_are_the_undefended_models(workplace):
    attack = (
        "python3", "attack_targets.py", "--network", "lr", "--mode", "multipoison", "--poisons", "3", "--epochs", "2",
        "--beta", "0", "--feature-distance", "1e6", "--radius", "2.2", "--target", "2", "--attack", "bullseye",
        "--shaping", "0.1",
    )  # fmt: skip
    kept = {"MODELS": REPOSITORY / "models"}
    workplace.succeed(*attack, "--learning-rate", "0.04", "--transfer", **kept)
    (path,) = [name for name in workplace.written() if "attack_w" in name]
    assert "tpoisoning/bullseye/multipoison/purchases-cj/dp_lr" in path and "_from_undefended" in path
    assert "leave --attack" in refused(workplace.run(*attack, "--mode", "oneshot", "--record", **kept))


def test_every_attack_is_tested():
    assert {case.split(",")[0] for case in CASES} == set(together.NAMES)


def test_the_table_counts_the_fewest_poisons_within_the_epochs():
    """Three targets of four poisons: one falls to the second after 30 epochs and to the third after 20, one to none,
    one without any poison (which does not count).
    """
    hits = {0: {2: 30, 3: 20}, 1: {}, 2: {0: 5}}
    lines = pd.DataFrame(
        [
            {"poison": poison, "success": str(poison in epochs), "epoch": epochs.get(poison, 50), "target": target}
            for target, epochs in hits.items()
            for poison in range(5)
        ],
        index=np.repeat(list(hits), 5),
    )
    cells = pd.DataFrame(
        {
            "dataset": "purchases-cj", "network": "lr", "attack": "bullseye", "shaping": "4", "clip_norm": 4.0,
            "noise_multiplier": 0.0, "learning_rate": 0.04, "poisons": 4, "target": list(hits), "source": "a.csv",
            "budget": f"0.0_2000_1000000.0_4_1e-10{shafahi.RADIUS}2.0{shafahi.TRANSFERRED}",
        },
        index=list(hits),
    )  # fmt: skip
    table = reports.together.together(cells, lines).set_index("within")
    assert (table.radius == 2).all() and (table.crafted_against == "undefended").all() and (table.targets == 3).all()
    assert table.successes.to_dict() == {50: 1, 25: 1}
    assert table.median_poisons.tolist() == [np.inf, np.inf]  # two of three fall to none
    fallen = reports.together.together(cells.loc[[0]], lines.loc[[0]]).set_index("within")
    assert fallen.median_poisons.to_dict() == {50: 2, 25: 3} and fallen.median_epoch.to_dict() == {50: 30, 25: 20}
    assert fallen.share_high.loc[50] == 1 and fallen.share_low.loc[50] == pytest.approx(0.2065, abs=1e-3)
