"""The calibration curve: neutral at first, right in the end, and following what changes."""

from __future__ import annotations

import numpy as np
import pytest

from learners.calibration_curve import CUT, FIRST_VARIANCE, N_KNOTS, STEP, calibrated, follow


def _fresh() -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(N_KNOTS), np.full(N_KNOTS, FIRST_VARIANCE)


def _teach(curve: np.ndarray, variances: np.ndarray, n: int, slope: float, shift: float, seed: int) -> None:
    """Impressions whose logit z ought to be slope z + shift."""
    random = np.random.default_rng(seed)
    zs = random.normal(0.0, 1.2, n)
    ys = random.random(n) < 1 / (1 + np.exp(-(slope * zs + shift)))
    for z, y in zip(zs.tolist(), ys.astype(np.float64).tolist(), strict=True):
        follow(z, y, curve, variances)


def test_a_step_is_a_kalman_step_of_the_two_knots_around() -> None:
    curve, variances = _fresh()
    assert calibrated(0.65, curve) == 0.65
    follow(0.65, 1.0, curve, variances)
    k = int((0.65 + CUT) / STEP)
    phi = np.array([0.7, 0.3])  # 0.65 is three tenths of the way from 0.5 to 1
    p = 1 / (1 + np.exp(-0.65))
    h = p * (1 - p)
    den = 1 / (FIRST_VARIANCE * (phi @ phi) + 1 / h)
    expected = phi * FIRST_VARIANCE * den * (1 - p) / h
    np.testing.assert_allclose(curve[k : k + 2], expected, rtol=1e-9)
    assert np.count_nonzero(curve) == 2
    assert calibrated(0.65, curve) == pytest.approx(0.65 + phi @ expected)


def test_it_straightens_a_model_that_is_too_sure() -> None:
    curve, variances = _fresh()
    _teach(curve, variances, 300_000, slope=0.7, shift=-0.1, seed=0)
    for z in (-2.0, -1.0, 0.0, 0.75, 1.5):
        assert calibrated(z, curve) == pytest.approx(0.7 * z - 0.1, abs=0.15)


def test_it_follows_a_change_however_much_it_has_seen() -> None:
    curve, variances = _fresh()
    _teach(curve, variances, 200_000, slope=1.0, shift=0.0, seed=1)
    assert calibrated(0.0, curve) == pytest.approx(0.0, abs=0.1)
    _teach(curve, variances, 150_000, slope=1.0, shift=-0.5, seed=2)
    assert calibrated(0.0, curve) == pytest.approx(-0.5, abs=0.15)
    assert (variances < 2 * FIRST_VARIANCE).mean() > 0.5


@pytest.mark.parametrize("z", [-50.0, -CUT, CUT, 50.0])
def test_ends_hold_beyond_the_last_knots(z: float) -> None:
    curve, variances = np.linspace(-0.3, 0.3, N_KNOTS), _fresh()[1]
    assert calibrated(z, curve) == pytest.approx(z + 0.3 * np.sign(z), abs=1e-6)
    follow(z, 1.0, curve, variances)
    assert np.isfinite(curve).all()
    assert (variances > 0).all()
