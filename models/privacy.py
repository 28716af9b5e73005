"""The privacy that a DP-SGD training spends, by dp_accounting's RDP accountant and the paper's conversion."""

from __future__ import annotations

import functools
import math

import numpy as np

ORDERS = [1 + tenth / 10 for tenth in range(1, 100)] + list(range(12, 64))


def epsilon(noise_multiplier: float, batch_size: int, rows: int, steps: int, delta: float) -> float:
    """The epsilon at `delta` after `steps` steps on batches of `batch_size` out of `rows`; infinite without noise."""
    return composed([(noise_multiplier, steps)], batch_size, rows, delta)


def composed(phases: list[tuple[float, int]], batch_size: int, rows: int, delta: float) -> float:
    """The epsilon at `delta` of phases, each a noise multiplier and a number of steps; infinite if one has no noise.

    min over orders a of the sum of steps * RDP(a) + ln(1/delta) / (a - 1) (Mironov 2017, proposition 3), with the RDP
    of the Poisson-subsampled Gaussian (Mironov et al. 2019). Batches are shuffled, not Poisson-sampled, so the figure
    is optimistic.
    """
    if any(noise_multiplier == 0 for noise_multiplier, _ in phases):
        return math.inf
    orders = np.array(ORDERS)
    spent = sum(steps * _rdp_of_a_step(noise_multiplier, batch_size / rows) for noise_multiplier, steps in phases)
    return float(np.min(spent - math.log(delta) / (orders - 1)))


@functools.cache
def _rdp_of_a_step(noise_multiplier: float, sampling_rate: float) -> np.ndarray:
    """RDP of one step at each of ORDERS, float64."""
    import dp_accounting  # half a second, and only a noisy training needs it
    from dp_accounting import rdp

    accountant = rdp.RdpAccountant(ORDERS)
    accountant.compose(
        dp_accounting.PoissonSampledDpEvent(sampling_rate, dp_accounting.GaussianDpEvent(noise_multiplier))
    )
    # The accountant's own get_epsilon converts by a tighter, later formula than the paper's, so its RDP is read off;
    # the release is pinned.
    return accountant._rdp
