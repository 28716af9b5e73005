"""Twelve journeys of a newcomer, run as the documents tell them, and their table."""

import dataclasses

import journeys
import pandas as pd
import pytest
import warm
from conftest import REPOSITORY

TOLD = journeys.journeys()
SIGNALLED = "Resume"  # its commands' process group, which holds no command of a Python that has begun already


@pytest.mark.slow
@pytest.mark.parametrize("title", [title for title in TOLD if title != journeys.SLURM])
def test_journeys_end_as_told(title, tmp_path):
    python = None if title == SIGNALLED else warm.python()
    journeys.travel(TOLD[title], *journeys.prepared(tmp_path, python))


def test_a_journey_that_ends_otherwise_is_noticed(tmp_path):
    told = dataclasses.replace(TOLD["Cite"], commands=["echo 0.94 within"], printed=["0.94 within"], files={})
    assert journeys.travel(told, tmp_path, {}) == "0.94 within\n"
    with pytest.raises(AssertionError, match=r"0\.95 within"):
        journeys.travel(dataclasses.replace(told, printed=["0.95 within"]), tmp_path, {})
    with pytest.raises(AssertionError, match="Cite: "):
        journeys.travel(dataclasses.replace(told, commands=["false", "echo 0.94 within"]), tmp_path, {})


def test_the_table_is_of_these_journeys():
    table = pd.read_csv(journeys.TABLE)
    counted = pd.DataFrame([journeys.row(journey, None) for journey in TOLD.values()])
    pd.testing.assert_frame_equal(table.drop(columns="seconds"), counted.drop(columns="seconds"))
    assert table.seconds.notna().all() and len(table) >= 12
    text = (REPOSITORY / "docs/journeys.md").read_text()
    assert journeys.document(table, text) == text
