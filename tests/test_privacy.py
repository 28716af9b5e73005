"""Epsilons, against those that the paper's authors published with their models, and against dp_accounting's own
conversion.
"""

import csv
import math

import dp_accounting
import pytest
from dp_accounting import rdp

from models import privacy
from results import layout

PUBLISHED = [line for line in csv.DictReader(open(layout.PUBLISHED / "models.csv")) if line["epsilon"] != "inf"]


def test_eight_epsilons_are_published():
    assert len(PUBLISHED) == 8


@pytest.mark.parametrize("line", PUBLISHED, ids=lambda line: f"{line['network']}-{line['noise_multiplier']}")
def test_published_epsilon_to_every_digit_but_the_last(line):
    epsilon = privacy.epsilon(float(line["noise_multiplier"]), 100, 10000, 100 * int(line["epoch"]), 1e-5)
    assert abs(epsilon - float(line["epsilon"])) < 1e-3


def test_without_noise_there_is_no_privacy():
    assert privacy.epsilon(0.0, 300, 10800, 1440, 1e-5) == math.inf


@pytest.mark.parametrize("order", [1.1, 2.3, 5.7, 10.9, 12, 40, 63])
def test_where_all_rows_are_in_each_step_it_is_the_closed_form(order):
    """Without sampling the RDP of T steps is a T / (2 sigma^2), best at a = 1 + sigma sqrt(2 ln(1/delta) / T)."""
    told, steps = math.log(1e5), 7
    noise_multiplier = (order - 1) / math.sqrt(2 * told / steps)
    expected = order * steps / (2 * noise_multiplier**2) + told / (order - 1)
    assert privacy.epsilon(noise_multiplier, 100, 100, steps, 1e-5) == pytest.approx(expected, rel=1e-9)
    two = [(noise_multiplier, 3), (noise_multiplier * 2, 16)]  # twice the noise: a quarter of the RDP
    assert privacy.composed(two, 100, 100, 1e-5) == pytest.approx(expected, rel=1e-9)


def test_it_bounds_the_tighter_conversion():
    accountant = rdp.RdpAccountant(privacy.ORDERS)
    accountant.compose(dp_accounting.PoissonSampledDpEvent(0.01, dp_accounting.GaussianDpEvent(1.0)), 1000)
    tighter = accountant.get_epsilon(1e-5)
    assert tighter < privacy.epsilon(1.0, 100, 10000, 1000, 1e-5) < 1.5 * tighter
