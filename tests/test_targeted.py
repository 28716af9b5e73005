"""Which first trials of targets run as one stack, and what is known of them afterwards."""

from __future__ import annotations

import functools
import threading
from types import SimpleNamespace

import numpy as np
import pytest

import targeted
from models import trials

SIZES = {10: 2, 11: 3, 12: 2, 13: 0, 14: 2, 15: 2, 16: 3}  # poisons of each target


@pytest.fixture
def ask(monkeypatch):
    """Ask an attack on all targets, in stacks of four, for what is known of one; `ran` are the stacks so far."""
    ran, finished = [], set()

    def control(engine, setting, targets, places):
        return SimpleNamespace(trial=lambda number, wanted, epochs: ("control", targets[number], places, epochs))

    def firsts(engine, setting, x, y, places, targets, wanted):
        ran.append((x.tolist(), places))
        assert targets.tolist() == [10 * (poison // 10) for poison in x] and wanted == 4  # each its own poison
        return [{length: ("first", poison, length) for length in setting.epochs} for poison in x.tolist()]

    def ask(attack, target, epochs=(3, 1)):
        setting = trials.Setting(attack.dataset, attack.mode, 50, epochs, 215)
        engine = SimpleNamespace(shapings=[None] * 5)
        return targeted.Attack.known(attack, engine, setting, target, SIZES[target])

    monkeypatch.setattr(trials, "TOGETHER", 2)
    monkeypatch.setattr(trials, "control", control)
    monkeypatch.setattr(trials, "firsts", firsts)
    monkeypatch.setattr(targeted, "finished", lambda cell: cell in finished)
    ask.ran, ask.finished = ran, finished
    return ask


def attack_of(mode: str, firsts_together: bool = True) -> SimpleNamespace:
    """An attack on all targets; the k-th poison of target t is 10 t + k, and what the target looks like 10 t."""
    attack = SimpleNamespace(
        mode=mode, targets=list(SIZES), epochs=[3, 1], firsts_together=firsts_together, controls={}, firsts={},
        one_for_all=threading.Lock(), classes=(3, 4), dataset=SimpleNamespace(x_test=10 * np.arange(20)),
    )  # fmt: skip
    sets = {
        target: SimpleNamespace(x=10 * target + 1 + np.arange(size), y=np.full(size, 4))
        for target, size in SIZES.items()
    }
    attack.wanted = lambda target: [((target, length), sets[target]) for length in attack.epochs]
    attack._run_firsts = functools.partial(targeted.Attack._run_firsts, attack)
    return attack


def test_each_target_with_poisons_begins_with_the_first_of_its_own(ask):
    attack = attack_of("oneshot")
    for target, size in SIZES.items():
        for length, (none, *first) in ask(attack, target).items():
            assert none == ("control", target, min(1, size), length)
            assert first == [("first", 10 * target + 1, length)] * bool(size)
    assert ask.ran == [([101, 111, 121], 1), ([141, 151, 161], 1)]  # of the first four targets, of the others
    assert ask(attack, 10, epochs=(1,)) == {1: [("control", 10, 1, 1), ("first", 101, 1)]} and len(ask.ran) == 2


def test_of_several_poisons_only_targets_with_as_many_share_a_stack(ask):
    attack = attack_of("multipoison")
    for target in SIZES:
        ask(attack, target)
    assert ask.ran == [([101, 121], 2), ([111], 3), ([141, 151], 2), ([161], 3)]


def test_what_is_finished_is_not_run_again(ask):
    ask.finished |= {(10, 3), (10, 1), (12, 3)}  # the other has one number of epochs left
    assert ask(attack_of("oneshot"), 11)[3][1] == ("first", 111, 3)
    assert ask.ran == [([111, 121], 1)]


def test_without_shared_first_trials_only_the_control_is_known(ask):
    assert ask(attack_of("oneshot", firsts_together=False), 11)[1] == [("control", 11, 1, 1)] and not ask.ran
