"""Shapings as values: how they are spelled and filed, what they cost in epsilon, and how kinds share a stack."""

import argparse
import hashlib
import math

import numpy as np
import pytest

from models import device

device.start()

import tensorflow as tf  # noqa: E402

from command_line import POSITIVE, BadInput  # noqa: E402
from models import baselines, minibatches, networks, privacy, shaping, stack, tfprivacy  # noqa: E402
from models.kind import KINDS, kind, load_file  # noqa: E402
from models.shaping import UNDEFENDED, Shaping  # noqa: E402
from models.trainer import Training, stacks  # noqa: E402


@pytest.fixture
def kinds():
    """Two kinds for the length of a test: one bounds each example's influence by 1, the other by nothing."""
    before = dict(KINDS)

    @kind({"gamma": POSITIVE}, sensitivity=lambda gamma: 1.0)
    def shrink(batch, gamma):
        return 1 / (tf.sqrt(batch.squared_norms) + gamma)

    @kind({"power": POSITIVE, "scale": POSITIVE})
    def power_law(batch, power, scale):
        return scale * tf.pow(batch.squared_norms, power)

    yield
    KINDS.clear()
    KINDS.update(before)


SPELLED = [
    ("undefended", UNDEFENDED, "vanilla_lr_300_40_0.01"),
    ("4", Shaping.clip(4), "dp_lr_300_40_0.01_1000.0_1e-05_4.0_0.0"),
    ("0.1", Shaping.clip(0.1), "dp_lr_300_40_0.01_1000.0_1e-05_0.1_0.0"),
    ("4:0.0025", Shaping.clip(4, 0.01), "dp_lr_300_40_0.01_1000.0_1e-05_4.0_0.0025"),
    ("3:noise_std=0.1", Shaping.clip(3, 0.1), "dp_lr_300_40_0.01_1000.0_1e-05_3.0_0.03333333333333333"),
    ("undefended:noise_std=0.1", Shaping.clip(math.inf, 0.1), "undefended_lr_300_40_0.01_noise_std=0.1"),
    ("shrink:0.01", Shaping.of("shrink", 0.01), "shrink_lr_300_40_0.01_0.01"),
    ("shrink:0.01:0.5", Shaping.of("shrink", 0.01, noise_std=0.5), "shrink_lr_300_40_0.01_0.01_0.5"),
    ("power-law:2:3", Shaping.of("power-law", 2, 3), "power-law_lr_300_40_0.01_2_3"),
]


@pytest.mark.parametrize(("text", "value", "name"), SPELLED)
def test_a_shaping_goes_from_text_to_value_and_back(text, value, name, kinds):
    assert shaping.shaping(text) == value and value.text == text
    assert value.model_name("lr_300_40_0.01") == name
    assert shaping.shaping(value.settings["shaping"]) == value
    assert (value.settings["kind"] == "undefended") == text.startswith("undefended")
    assert math.isfinite(value.settings.get("clip_norm", 0.0))  # JSON has no infinity


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("phuber:2+4", "phuber:2+clip:4"), ("4+phuber:2", "clip:4+phuber:2"),
        ("clip:1e+05+linear", "clip:100000+linear"),
        ("1@5,linear", "clip:1@5,linear"), ("undefended@3,4:0.5", "undefended@3,clip:4:0.5"), ("4:-0", "4"),
        ("cosine:-0", "cosine:0"), ("clip:1e15@2,gce:0.7+psac:1:0.1:0.5", "clip:1e+15@2,gce:0.7+psac:1:0.1:0.5"),
        ("trim-loss:0.1+clip:1:noise_std=0.5", "trim-loss:0.1+clip:1:noise_std=0.5"),
    ],
)  # fmt: skip
def test_chains_and_schedules_have_one_text_each_that_gives_them_back(text, canonical):
    value = shaping.shaping(text)
    assert value.text == canonical and shaping.shaping(canonical) == value
    assert not set(value.model_name("lr_300_40_0.01")) & set(
        " '\"$`\\&;|<>()*?[]{}~#!/"
    )  # a shell and a folder take it


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("phuber", "lacks tau"), ("foo:1", "no kind 'foo'"), ("phuber:2:0.1", "noise is given as noise_std="),
        ("trim-loss:0.1+clip:1:0.1", "noise is given as noise_std="), ("clip:1:0.1+phuber:2", "one too many"),
        ("median-of-means:5+clip:1", "last link"), ("clip:1+undefended", "no link of a chain"),
        ("clip:1@0,linear", "1 epoch"), ("clip:1@5,", "no kind"), ("trim-loss:1", "below 1"),
        ("trimmed-mean:0.5:10", "below 0.5"), ("epic:0:1:5", "between"), ("median-of-means:65", "1 to 64"),
        ("multi-krum:0.3:2.5", "whole number"), ("abl:0.5:1" + 400 * "0" + ":0.1", "whole"),
        ("auto-s:1e-50", "from 1e-30 to 1e30"),
        ("cosine:1e-50", "too small for float32"), ("cosine:2", "from -1 to 1"), ("linear:1", "noise is given as"),
        ("clip:1++linear", "no kind"), ("clip:1:0.1:noise_std=1", "one amount"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_is_wrong_and_what_there_is(text, why):
    with pytest.raises(argparse.ArgumentTypeError) as refusal:
        shaping.shaping(text)
    assert why in str(refusal.value) and "quantile-clip:quantile:rate:initial_clip_norm" in str(refusal.value)


def test_only_what_is_undefended_from_first_to_last_is_called_vanilla():
    assert shaping.shaping("undefended@1,undefended").model_name("lr") != UNDEFENDED.model_name("lr") == "vanilla_lr"
    for name in ("vanilla", "dp", "none", "Halve", "_own"):
        with pytest.raises(ValueError, match="choose another|small letters"):
            kind()(type("Named", (), {"__name__": name, "__call__": lambda self, batch: 1.0})())


def test_epsilon_of_a_schedule_composes_its_phases():
    one, other = shaping.shaping("1:1@3,auto-v:2"), [(1.0, 3 * 36), (2.0, 5 * 36)]
    assert one.epsilon(300, 10800, 8 * 36) == round(privacy.composed(other, 300, 10800, 1e-5), 4)
    assert one.epsilon(300, 10800, 2 * 36) == shaping.shaping("1:1").epsilon(300, 10800, 2 * 36)  # not begun: not spent
    assert shaping.shaping("1:1@3,linear").epsilon(300, 10800, 3 * 36) < math.inf
    assert shaping.shaping("1:1@3,linear").epsilon(300, 10800, 4 * 36) == math.inf


@pytest.mark.parametrize("clip_norm", [0.1, 1, 2, 4, 8, 100, 3, 0.7])
@pytest.mark.parametrize("noise_std", [0.0, 0.1, 0.001, 0.00001, 1 / 3])
def test_every_amount_of_noise_has_a_text_that_gives_it_back(clip_norm, noise_std):
    value = Shaping.clip(clip_norm, noise_std)
    assert shaping.shaping(value.text) == value


def test_shapings_that_differ_in_a_late_digit_have_names_of_their_own():
    names = {shaping.shaping(text).model_name("lr") for text in ("0.3:noise_std=0.1", "0.3:0.333333333333")}
    assert len(names) == 2


@pytest.mark.parametrize(
    ("text", "defended"),
    [("undefended", False), ("clip:1", True), ("undefended@1,clip:1", True), ("clip:1@1,undefended", True),
     ("undefended:noise_std=1@2,undefended", True), ("undefended@2,undefended", False)],
)  # fmt: skip
def test_a_shaping_defends_that_changes_a_gradient_in_any_phase(text, defended):
    assert shaping.shaping(text).defended == defended


def test_micro_batches_are_from_one_to_sixty_four():
    assert [shaping.shaping(f"median-of-means:{count}").links[0].micro_batches for count in (1, 64)] == [1, 64]
    for count in (0, 65, 2.5):
        with pytest.raises(argparse.ArgumentTypeError, match="a whole number from 1 to 64"):
            shaping.shaping(f"median-of-means:{count}")


def test_what_a_file_defines_is_known_by_the_files_content(kinds, tmp_path):
    text = "from models.kind import kind\n@kind()\ndef {}(batch):\n    return 1\n"
    (tmp_path / "mine.py").write_text(text.format("mine"))
    load_file(tmp_path / "mine.py")
    digest = hashlib.sha256((tmp_path / "mine.py").read_bytes()).hexdigest()
    assert KINDS["mine"].file_sha256 == digest and KINDS["shrink"].file_sha256 is None
    assert shaping.shaping("mine+shrink:1").settings["shaping_file_sha256"] == {"mine": digest}
    assert "shaping_file_sha256" not in shaping.shaping("shrink:1").settings
    with pytest.raises(BadInput, match="defines no kind"):
        (tmp_path / "none.py").write_text("")
        load_file(tmp_path / "none.py")


def test_names_that_are_taken_are_no_kinds(kinds):
    def clip(batch, epochs):
        return 1.0

    for parameters in ({}, {"epochs": POSITIVE}):
        with pytest.raises(ValueError, match="choose another"):
            kind(parameters)(clip)
    clip.__name__ = "other"
    with pytest.raises(ValueError, match="choose another"):
        kind({"epochs": POSITIVE})(clip)
    with pytest.raises(ValueError, match="a value for each of its parameters"):
        kind({"one": POSITIVE, "another": POSITIVE})(clip)


@pytest.mark.parametrize(
    "other", ["clip:4:0.0025", "clip:clip_norm=4:noise_std=0.01", "clip:noise_multiplier=0.0025:4", "4:noise_std=0.01"]
)
def test_one_shaping_has_one_text(other):
    assert shaping.shaping(other).text == "4:0.0025"


@pytest.mark.parametrize(
    "text",
    ["tight", "", "0", "-1", "inf", "nan", "4:", "4:-1", "4:noise", "4:1:2", "clip", "clip:4:clip_norm=3", "shrink",
     "shrink:0", "shrink:0.1:2:3", "power-law:1", "power-law:1:2:0.5", "undefended:3",
     "4:noise_std=1:noise_multiplier=1",
     "1e300:1e300", "4:strength=2"],
)  # fmt: skip
def test_what_is_no_shaping_is_refused_with_what_there_is(text, kinds):
    with pytest.raises(argparse.ArgumentTypeError) as refusal:
        shaping.shaping(text)
    assert repr(text) in str(refusal.value) and "undefended" in str(refusal.value)
    assert "shrink:gamma" in str(refusal.value)


def test_epsilon_is_finite_only_where_one_examples_influence_is_bounded(kinds):
    steps = (300, 10800, 36)
    assert Shaping.clip(4, 0.4).epsilon(*steps) == round(privacy.epsilon(0.1, *steps, 1e-5), 4)
    assert Shaping.of("shrink", 0.01, noise_std=0.1).epsilon(*steps) == Shaping.clip(4, 0.4).epsilon(*steps)
    for unbounded in (
        UNDEFENDED,
        Shaping.clip(4),
        Shaping.clip(math.inf, 5.0),
        Shaping.of("power-law", 1, 1, noise_std=5.0),
    ):
        assert unbounded.epsilon(*steps) == math.inf


def rows_of(replicas: int, weight=None):
    random = np.random.default_rng(5)
    x, y = random.random((90, 12), np.float32), random.integers(0, 3, 90).astype(np.int32)
    return minibatches.Rows.of(x, y, np.arange(90) >= 70, replicas, weight)


@pytest.mark.parametrize("network", ["lr", "shallow-mlp"])
def test_kinds_that_share_a_stack_train_as_each_would_alone(network, kinds):
    mixed = [
        UNDEFENDED,
        Shaping.clip(0.5),
        Shaping.of("shrink", 0.1, noise_std=0.2),
        Shaping.of("shrink", 1),
        Shaping.clip(2.0, 0.1),
    ]
    mixed.append(Shaping.of("power-law", 0.5, 0.3))
    model = networks.build(network, (12,), 3, 7)
    weight = np.random.default_rng(6).integers(0, 2, (90, len(mixed))).astype(np.float32)
    together = stack.Stack(model, mixed, "sgd", 0.1, 7)
    alone = [stack.Stack(model, [one], "sgd", 0.1, 7) for one in mixed]

    def train(engine, rows, epoch):
        engine.train_epoch(rows, minibatches.shuffled(rows, 30, 7, epoch), record=True)

    def agree(replicas):
        for place, replica in enumerate(replicas):
            for mine, other in zip(together.weights(place), alone[replica].weights(0)):
                assert np.abs(mine - other).max() < 1e-6

    rows = rows_of(len(mixed), weight)
    train(together, rows, 1)
    for replica, engine in enumerate(alone):
        train(engine, rows_of(1, weight[:, [replica]]), 1)
    agree(range(len(mixed)))
    together.keep([0, 3, 5])  # one kind loses a replica, another one is gone for good
    train(together, rows.keep([0, 3, 5]), 2)
    for replica in (0, 3, 5):
        train(alone[replica], rows_of(1, weight[:, [replica]]), 2)
    agree([0, 3, 5])
    with pytest.raises(ValueError, match="ascending"):
        together.keep([1, 0])
    together.reset()
    train(together, rows, 1)
    alone[4].reset()
    train(alone[4], rows_of(1, weight[:, [4]]), 1)
    assert all(np.abs(a - b).max() < 1e-6 for a, b in zip(together.weights(4), alone[4].weights(0)))


def test_the_stack_weighs_by_the_kinds_own_formula(kinds):
    """One step of SGD at rate 1 against w_i g_i formed example by example."""
    model = networks.build("lr", (12,), 3, 7)
    rows = rows_of(1)
    engine = stack.Stack(model, [Shaping.of("shrink", 0.3)], "sgd", 1.0, 7)
    engine.train_epoch(rows, minibatches.shuffled(rows, 90, 7, 1))
    x, y = rows.x.numpy().astype(float), rows.y.numpy()
    kernel, bias = model.get_weights()
    logits = x @ kernel + bias
    deltas = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - np.eye(3)[y]
    gradients = np.concatenate([x, np.ones((90, 1))], 1)[:, :, np.newaxis] * deltas[:, np.newaxis]
    norms = np.sqrt((gradients**2).sum((1, 2)))
    expected = (gradients / (norms + 0.3)[:, np.newaxis, np.newaxis]).mean(0)
    moved = np.concatenate([kernel - engine.weights(0)[0], (bias - engine.weights(0)[1])[np.newaxis]])
    assert np.abs(moved - expected).max() < 1e-6


def test_kinds_lie_side_by_side_in_the_stacks_of_a_sweep(kinds, subtask):
    training = Training.published(subtask.name, "lr")
    shapings = [UNDEFENDED, Shaping.of("shrink", 1), Shaping.clip(1), Shaping.of("shrink", 2)]
    (group,) = stacks("lr", baselines.clean_cells(training, shapings, None))
    assert [cell.shaping.kind for cell in group] == ["clip", "clip", "shrink", "shrink"]


def test_the_reference_engine_refuses_what_it_does_not_do(kinds):
    for text in ("shrink:1", "undefended:noise_std=1"):
        with pytest.raises(BadInput, match="--engine tfprivacy"):
            tfprivacy.check(shaping.shaping(text))
    for text in ("undefended", "4:0.1"):
        tfprivacy.check(shaping.shaping(text))
