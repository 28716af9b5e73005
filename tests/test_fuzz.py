"""The fuzzer (tests/fuzz.py) in short: no reader is crashed, and a reader that can be is found out."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time

import fuzz
import fuzz_formats
import numpy as np
import pytest
from fuzz_formats import FORMATS

from command_line import BadInput
from poisons import mat_file, poison_set

FILES = {"report": 8}  # others: 300


@pytest.mark.parametrize("name", FORMATS)
def test_no_damaged_file_crashes_a_reader(name, tmp_path, record_property):
    tally = fuzz.fuzz(name, FORMATS[name], FILES.get(name, 300), seed=1)
    assert not tally.findings, [finding[:2] for finding in tally.findings]
    assert tally.counts["files"] == FILES.get(name, 300) == tally.counts["refused"] + tally.counts["read"]
    assert tally.counts["refused"] > 0 and tally.counts["covered"] > 50
    record_property("fault", (f"fuzzed: {name}", tally.counts["files"]))


@pytest.fixture(autouse=True)
def places():
    with fuzz_formats.kept_places():
        yield


def test_seeds_are_read_and_damage_is_the_same_for_the_same_seed(tmp_path):
    for name, form in FORMATS.items():
        if name == "report":  # of the seeds of others
            continue
        folder = tmp_path / name
        folder.mkdir()
        seeds = form.seeds(folder)
        read = set()
        for kind, content in seeds:
            try:
                read.add((kind, form.read(folder, kind, content) > 0))
            except fuzz.REFUSALS():
                continue
        assert {kind for kind, _ in read} == {kind for kind, _ in seeds} - {"baskets"}, name
        made = [
            [form.damage(kind, content, content, random.Random(number)) for number, (kind, content) in enumerate(seeds)]
            for _ in range(2)
        ]
        assert made[0] == made[1] and made[0] != [content for _, content in seeds]


def test_tables_as_large_as_are_read_stay_in_bounded_memory():
    """A first line as it should be, and one line over and over, 32 MiB."""
    whole, rows = FORMATS["csv"], (b"", b",", b"1", b'""', b"\0", "\U0001f600".encode())

    def seeds(folder):
        return [(kind, content.partition(b"\n")[0] + b"\n") for kind, content in whole.seeds(folder)]

    def damage(kind: str, content: bytes, other: bytes, dice: random.Random) -> bytes:
        row = dice.choice(rows)
        return content + (row if row == b"," else b",".join([row] * (content.count(b",") + 1)))

    def read(folder, kind: str, content: bytes) -> int:
        head, _, row = content.partition(b"\n")
        return whole.read(folder, kind, head + b"\n" + (row + b"\n") * ((2**25 - 2000) // (len(row) + 1)))

    form = fuzz_formats.Format(seeds, damage, read, ("results.layout",), parses=True, seconds=60)
    tally = fuzz.fuzz("large", form, 10)
    assert not tally.findings and tally.counts["refused"] == 10, [finding[:2] for finding in tally.findings]
    assert 10 < tally.counts["peak_mib"] < 256


def key_error(content: bytes) -> None:
    if len(content) % 5 == 0:
        raise KeyError("rows")


def sleeps(content: bytes) -> None:
    if len(content) % 200 == 0:
        time.sleep(60)


def allocates(content: bytes) -> None:
    if len(content) % 50 == 0:
        np.ones(600 * 2**17)  # 600 MiB


def ends(content: bytes) -> None:
    if len(content) % 50 == 0:
        os.kill(os.getpid(), signal.SIGSEGV)


def runs(content: bytes) -> None:
    if len(content) % 5 == 0:
        os.system("true")


def writes(content: bytes) -> None:
    if len(content) % 5 == 0:
        open("/tmp/fuzz-writes-outside", "ab").close()


BROKEN = {
    key_error: ("crashes", "KeyError: \"'rows'\""), sleeps: ("hangs", "more than 1 s"),
    allocates: ("memory", "MiB beside the result"), ends: ("crashes", "signal SIGSEGV"),
    runs: ("crashes", "it did os.system"), writes: ("crashes", "it did open"),
}  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_a_broken_reader_is_found_out(broken, tmp_path):
    def read(folder, kind: str, content: bytes) -> int:
        broken(content)
        return 0

    def damage(kind: str, content: bytes, other: bytes, dice: random.Random) -> bytes:
        return content[: dice.randrange(len(content))]

    seconds = 1.0 if broken is sleeps else 30.0
    form = fuzz_formats.Format(lambda _: [("a", b"x" * 1000 + b"y")], damage, read, ("files",), seconds=seconds)
    tally = fuzz.fuzz("broken", form, 200)
    column, why = BROKEN[broken]
    assert tally.counts[column] == len(tally.findings) > 0 and tally.counts["files"] >= 200
    assert all(reason.startswith(why) or why in reason for _, reason, _, _ in tally.findings), tally.findings[0][:2]
    found = [content for _, _, _, content in tally.findings]
    assert len(set(found)) > 0 and all(set(content) <= set(b"xy") for content in found)
    fuzz.keep(tmp_path / "kept", "crash", why, found)
    assert (tmp_path / "kept/1_0.bin").read_bytes() == min(found, key=len)


def test_a_matlab_file_that_ends_its_own_child_is_refused_in_one_line(tmp_path, monkeypatch):
    """The fuzzer reads MATLAB files in its own child; here some of them come by the reader itself."""
    form, dice = FORMATS["mat"], random.Random(3)
    seeds = form.seeds(tmp_path)
    path = tmp_path / "flips" / "slabs.mat"
    path.parent.mkdir(exist_ok=True)
    refused = 0
    for number in range(6):
        kind, content = seeds[number * 2]
        path.write_bytes(form.damage(kind, content, content, dice))
        try:
            poison_set.load(path, fuzz_formats.small_dataset())
        except BadInput as refusal:
            refused += 1
            assert str(refusal).startswith(f"{path}: ") and "\n" not in str(refusal)
    assert refused > 2
    path.write_bytes(seeds[0][1])
    monkeypatch.setattr(mat_file.sys, "executable", shutil.which("false"))
    with pytest.raises(BadInput, match="damaged: reading it ends the process that reads it"):
        poison_set.load(path, fuzz_formats.small_dataset())
