"""What a sweep's trainings share: which shapings a network takes, how stacks are dealt out, and where they start."""

from __future__ import annotations

import dataclasses
import gc
import weakref

import numpy as np
import pytest

from command_line import BadInput
from datasets import Dataset
from models import device
from models.shaping import UNDEFENDED, Shaping, shaping

device.start()

from models import minibatches, networks, tfprivacy  # noqa: E402
from models.trainer import Cell, Trainer, Training, check_shapings, stacks  # noqa: E402

TRAINING = Training("toy", "lr", "stack", "sgd", 10, 2, 5)


def rows(count: int = 40) -> Dataset:
    random = np.random.default_rng(0)
    x, y = random.random((count, 4, 4, 1), np.float32), np.arange(count, dtype=np.int32) % 2
    return Dataset("toy", 2, (4, 4, 1), x, y, x, y)


def cell(text: str = "undefended", rate: float = 0.1) -> Cell:
    return Cell(shaping(text), rate, text, {})


def test_shapings_are_taken_where_the_network_has_what_they_take():
    taken = [shaping(text) for text in ("clip:1", "phuber:2", "sever:0.3", "multi-krum:0.3:5", "median-of-means:3")]
    check_shapings(taken, "lr", rows())
    check_shapings(taken[:3], "badnet", rows())
    for one in taken[3:]:
        with pytest.raises(BadInput, match="takes micro-batches or Gram matrices") as refusal:
            check_shapings([taken[0], one], "badnet", rows())
        offered = str(refusal.value).rpartition("one of ")[2].split(", ")
        assert {"clip", "phuber", "sever"} < set(offered) and not {"multi-krum", "median-of-means"} & set(offered)


def test_trusted_rows_are_there_or_refused():
    data, wanted = rows(), [UNDEFENDED, shaping("trusted:5")]
    with pytest.raises(BadInput, match="toy has 0 held-out rows to trust, not 5"):
        check_shapings(wanted, "lr", data)
    for count in (4, 5):
        held_out = dataclasses.replace(data, held_out=(data.x_test[:count], data.y_test[:count]))
        if count == 5:
            check_shapings(wanted, "lr", held_out)
        else:
            with pytest.raises(BadInput, match="toy has 4 held-out rows to trust, not 5"):
                check_shapings(wanted, "lr", held_out)


@pytest.mark.parametrize(
    ("most", "sizes"), [(None, [7, 2]), (7, [7, 2]), (4, [3, 4, 2]), (3, [2, 2, 3, 2]), (1, [1] * 9)]
)
def test_cells_of_one_rate_are_dealt_out_evenly(most, sizes):
    cells = [cell(str(norm), 0.1) for norm in range(1, 8)]
    cells.insert(3, cell("8", 0.2))
    cells.append(cell("9", 0.2))
    pieces = stacks("lr", cells, most)
    assert [len(piece) for piece in pieces] == sizes
    told = [one.shaping.text for piece in pieces for one in piece]
    assert told == [*"1234567", "8", "9"] and all(len({one.learning_rate for one in piece}) == 1 for piece in pieces)
    assert [len(piece) for piece in stacks("badnet", cells, most)] == [1] * 9


def test_a_training_starts_where_it_is_told_or_at_the_seeds_weights():
    data, own = rows(), networks.build("lr", (4, 4, 1), 2, 77)
    for start, expected in ((None, networks.build("lr", (4, 4, 1), 2, 5)), (own, own)):
        engine = Trainer(TRAINING, data, start).engine([cell("undefended"), cell("1")])
        for replica in range(2):
            assert all(np.array_equal(*pair) for pair in zip(engine.weights(replica), expected.get_weights()))


def test_the_reference_engine_counts_right_rows_as_the_stack_does():
    data, weight = rows(), np.random.default_rng(1).integers(0, 3, (40, 2)).astype(np.float32)
    seen = minibatches.Rows.of(data.x_train, data.y_train, np.arange(40) >= 30, 2, weight)
    engines = [
        Trainer(dataclasses.replace(TRAINING, engine=name), data).engine([cell("undefended"), cell("1")])
        for name in ("stack", "tfprivacy")
    ]
    assert isinstance(engines[1], tfprivacy.TensorFlowPrivacy)
    ours, theirs = (engine.right(seen) for engine in engines)
    assert np.array_equal(ours, theirs) and 0 < ours[0].min() < weight[:30].sum(0).min()
    assert (ours[1] < weight[30:].sum(0)).any() and Shaping.clip(1).defended


def test_an_engine_that_makes_room_is_gone_at_once():
    trainer = Trainer(TRAINING, rows(), most=2)
    gc.disable()
    try:
        group = [cell("undefended"), cell("1")]
        first, seen = weakref.ref(trainer.engine(group)), trainer.rows(group)
        first().train_epoch(seen, minibatches.shuffled(seen, 10, 5, 1))  # what is traced refers to its engine
        assert first() is not None and trainer.engine([cell("2"), cell("4")]) is not None
        assert first() is None
    finally:
        gc.enable()
