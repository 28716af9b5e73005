"""How many replicas fit into memory: the bytes of small cases, counted by hand, to either side of a whole number."""

from __future__ import annotations

import resource

import numpy as np
import pytest

from command_line import BadInput
from datasets import Dataset
from models import memory
from models.shaping import shaping
from models.stack import EVALUATION_ROWS

GIB = 2**30
HIDDEN = 256 * 11 + 256 * 257 + 3 * 257  # parameters of the shallow MLP, of 10 features and 3 classes
# Bytes beside those of all cases: of each replica, and of each worker
CASES = {
    "lr": ({"network": "lr"}, 28 * 33 + 8 * 3 * EVALUATION_ROWS, 0),
    "two hidden layers": ({"network": "shallow-mlp"}, 28 * HIDDEN + 8 * (256 + 256 + 3) * EVALUATION_ROWS, 0),
    "recorded": ({"record": True}, 24 * 33 * 3, 0),  # a row of the last layer in each of 3 steps
    "recorded hidden": ({"network": "shallow-mlp", "record": True}, 24 * 3 * 257 * 3, 0),
    "no directions": ({"shapings": ["clip:1", "phuber:2"]}, 0, 0),
    "a direction": ({"shapings": ["clip:1", "sever:0.3"]}, 4 * 3 * 33, 0),
    "a chain of directions": ({"shapings": ["sever:0.3+running-cosine:0:0.9"]}, 4 * (3 + 3) * 33, 0),
    "micro-batches": ({"shapings": ["multi-krum:0.3:5", "clip:1"]}, 4 * 4 * 5 * 33, 0),
    "pairs of rows": ({"shapings": ["multi-krum:0.3:0", "multi-krum:0.3:5"]}, 4 * 8 * 50**2, 0),
    "the largest": ({"shapings": ["sever:0.3", "multi-krum:0.3:5"]}, 4 * 4 * 5 * 33, 0),
    "pairs of a class": ({"shapings": ["epic:0.3:1:5"]}, 0, 16 * 40**2),  # 120 rows of 3 classes
    "pairs of what a replica sees": ({"shapings": ["epic:0.3:1:5"], "own": 5}, 0, 16 * 35**2),
}  # fmt: skip


def rows(classes: int) -> Dataset:
    x, y = np.zeros((150, 10), np.float32), np.arange(150) % classes
    return Dataset("toy", classes, (10,), x[:100], y[:100], x[100:], y[100:])


def replicas(limit: float | None, workers: int, network="lr", record=False, shapings=(), own=None, classes=3) -> int:
    """Of 100 training rows and 20 poisons of 10 features, and 50 test rows, in batches of 50."""
    values = [shaping(text) for text in shapings]
    return memory.replicas(limit, workers, network, rows(classes), 20, 50, record, values, own)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_so_many_replicas_fit_as_their_bytes_say(case, workers):
    options, mine, shared = CASES[case]
    data, replica = 4 * 10 * 170, 80 * 120 + mine
    if case != "two hidden layers" and case != "lr":
        replica += CASES["two hidden layers" if "network" in options else "lr"][1]
    fixed = 0.55 * GIB + data + workers * (4 * data + shared)
    for count in (1, 7):
        needed = fixed + workers * count * replica
        assert replicas((needed + 100) / GIB, workers, **options) == count
        if count > 1:
            assert replicas((needed - 100) / GIB, workers, **options) == count - 1
    with pytest.raises(
        BadInput, match=rf"--memory .*: a .* on toy takes about {(fixed + workers * replica) / GIB:.2f}"
    ):
        replicas((fixed + workers * replica - 100) / GIB, workers, **options)


def test_pairs_are_not_compared_where_there_are_two_classes():
    limit = (0.55 * GIB + 5 * 6800 + 9600 + 28 * 22 + 8 * 2 * EVALUATION_ROWS + 100) / GIB
    assert replicas(limit, 1, shapings=["epic:0.3:1:5"], classes=2) == 1


def test_the_limit_is_a_quarter_of_what_there_is(monkeypatch, tmp_path):
    monkeypatch.setattr(memory.os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 10 * 2**18}.get)  # 10 GiB
    monkeypatch.setattr(memory, "CGROUP", tmp_path / "memory.max")
    limits = [resource.RLIM_INFINITY]
    monkeypatch.setattr(memory.resource, "getrlimit", lambda _: (limits[-1], limits[-1]))
    assert memory.default_limit() == 2.5 * GIB
    for text, expected in (("max", 2.5), (f"{4 * GIB}", 1), (f"{40 * GIB}", 2.5)):
        (tmp_path / "memory.max").write_text(text)
        assert memory.default_limit() == expected * GIB
    memory.check_address_space()
    for gib, expected in ((4, 2), (9, 2.5)):  # of `ulimit -v`, less what TensorFlow maps
        limits.append(gib * GIB)
        assert memory.default_limit() == expected * GIB and memory.address_space() == gib * GIB
        memory.check_address_space()
    limits.append(3 * GIB)
    memory.check_address_space()
    limits.append(3 * GIB - 1024)
    with pytest.raises(
        BadInput, match=f"ulimit -v {3 * 2**20 - 1}: TensorFlow needs about 3 GiB .* {3 * 2**20} or more"
    ):
        memory.check_address_space()


def test_without_a_limit_of_ones_own_one_replica_always_fits(monkeypatch):
    monkeypatch.setattr(memory, "default_limit", lambda: 1.0)
    assert replicas(None, 2) == 1
