"""Volatility models against the package `arch`, seeded and on real days, and against recursions by hand."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
from arch import arch_model
from arch.univariate import EWMAVariance, ZeroMean
from numpy.typing import NDArray

from contracts_abi.errors import InputError
from simulation.statistics.volatility import ewma_variance, filtered, fit_garch, garch_variance

HOURLY = Path(__file__).resolve().parents[3] / "shared" / "data" / "hourly" / "ETHUSDT_1h_2022_2025.csv.gz"


def simulated(rows: int, seed: int, degrees: float | None) -> NDArray[np.float64]:
    """Return returns of a GARCH(1,1) with omega 0.05, alpha 0.1, beta 0.85 and mean 0.02."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal(rows)
    if degrees is not None:
        z = rng.standard_t(degrees, rows) * np.sqrt((degrees - 2) / degrees)
    out, variance = np.empty(rows), 1.0
    for t in range(rows):
        out[t] = np.sqrt(variance) * z[t]
        variance = 0.05 + 0.1 * out[t] ** 2 + 0.85 * variance
    return out + 0.02


@pytest.mark.parametrize("rows", [365, 2_000])
@pytest.mark.parametrize("mean", ["zero", "constant"])
@pytest.mark.parametrize("likelihood", ["normal", "t"])
def test_garch_is_that_of_arch(rows: int, mean: str, likelihood: str) -> None:
    compare(simulated(rows, 1, 5.0), mean, likelihood)


@pytest.mark.skipif(not HOURLY.is_file(), reason=f"no recorded prices at {HOURLY}")
@pytest.mark.parametrize("likelihood", ["normal", "t"])
def test_garch_is_that_of_arch_on_real_days(likelihood: str) -> None:
    with gzip.open(HOURLY, "rt", encoding="utf-8") as file:
        closes = np.array([float(row["close"]) for row in csv.DictReader(file)][::24])
    compare(100 * np.diff(np.log(closes)), "constant", likelihood)


def compare(y: NDArray[np.float64], mean: str, likelihood: str) -> None:
    """Hold a fit to arch's: parameters and variances within 1e-4 relative, log-likelihood within 1e-5.

    On days of ETH and normal innovations arch stops 8 below in log-likelihood at another maximum, so it also
    starts from where the fit ended, and must not get away from there.
    """
    found = fit_garch(y, mean, likelihood)  # type: ignore[arg-type]
    model = arch_model(y, mean=mean.capitalize(), vol="GARCH", p=1, q=1, dist=likelihood, rescale=False)
    mine = [found.mu] if mean == "constant" else []
    mine += [found.omega, found.alpha, found.beta]
    mine += [found.degrees] if found.degrees is not None else []
    plain = model.fit(disp="off", tol=1e-12, options={"maxiter": 1_000})
    assert found.log_likelihood > plain.loglikelihood - 1e-5
    other = model.fit(disp="off", tol=1e-12, starting_values=np.array(mine), options={"maxiter": 1_000})
    assert mine == pytest.approx(other.params.to_numpy(), rel=1e-4, abs=1e-6)
    assert found.log_likelihood == pytest.approx(other.loglikelihood, abs=1e-5)
    assert found.variance[:-1] == pytest.approx(other.conditional_volatility**2, rel=1e-4)
    ahead = other.forecast(horizon=1).variance.to_numpy()[-1, 0]
    assert found.variance[-1] == pytest.approx(ahead, rel=1e-4)


def test_garch_does_not_depend_on_the_unit() -> None:
    y = simulated(500, 2, None)
    plain, scaled = fit_garch(y, "constant", "t"), fit_garch(y / 1_000, "constant", "t")
    assert scaled.beta == pytest.approx(plain.beta, rel=1e-6)
    assert scaled.omega * 1e6 == pytest.approx(plain.omega, rel=1e-6)
    assert scaled.log_likelihood == pytest.approx(plain.log_likelihood + 500 * np.log(1_000))
    assert garch_variance(plain, y) == pytest.approx(plain.variance, rel=1e-9)
    zero = fit_garch(y)
    assert garch_variance(zero, y) == pytest.approx(zero.variance, rel=1e-9)


def test_garch_finds_what_was_put_in() -> None:
    found = fit_garch(simulated(20_000, 3, None), "constant")
    assert found.alpha == pytest.approx(0.1, abs=0.015)
    assert found.beta == pytest.approx(0.85, abs=0.025)
    assert found.mu == pytest.approx(0.02, abs=0.02)
    assert fit_garch(simulated(20_000, 3, 5.0), "constant", "t").degrees == pytest.approx(5, abs=0.4)


def test_garch_refuses_what_cannot_be_fitted() -> None:
    for wrong in (np.zeros(100), np.ones(49), np.array([1.0] * 60 + [np.nan])):
        with pytest.raises(InputError):
            fit_garch(wrong)


def test_ewma_is_that_of_arch() -> None:
    y = simulated(400, 4, None)
    other = ZeroMean(y, volatility=EWMAVariance(0.94), rescale=False).fit(disp="off")
    theirs = other.conditional_volatility**2
    mine = ewma_variance(y, 0.94, start=float(theirs[0]))
    assert mine[:-1] == pytest.approx(theirs, rel=1e-12)


def test_ewma_by_hand() -> None:
    assert ewma_variance(np.array([2.0, 0.0]), 0.5, 1.0) == pytest.approx([1, 2.5, 1.25])
    both = ewma_variance(np.array([[2.0, 1.0], [0.0, 1.0]]), 0.5)
    assert both == pytest.approx(np.array([[2, 1], [3, 1], [1.5, 1]]))
    assert ewma_variance(np.array([1.0, 5.0]), 1.0, 3.0) == pytest.approx([3, 3, 3])
    for decay in (0.0, 1.1):
        with pytest.raises(InputError):
            ewma_variance(np.ones(3), decay)
    with pytest.raises(InputError):
        ewma_variance(np.array([[1.0, 0.0], [1.0, 0.0]]))


def test_filtered_history_by_hand() -> None:
    found = filtered(np.array([1.0, -2.0]), np.array([1.0, 4.0, 9.0]))
    assert found == pytest.approx([3, -3])
    with pytest.raises(InputError):
        filtered(np.ones(2), np.ones(2))
    with pytest.raises(InputError):
        filtered(np.ones(2), np.array([1.0, 0.0, 1.0]))
