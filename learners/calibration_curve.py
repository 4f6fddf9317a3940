"""A curve that calibrates logits online: piecewise linear, learned by a diagonal Kalman filter that forgets.

With knots l_k from -`CUT` to `CUT`, `STEP` apart, z cut to them between knots k and k + 1, and
f = (z - l_k) / `STEP`::

    z' = z + (1 - f) c_k + f c_{k+1}            p = sigmoid(z')            h = max(p (1 - p), H_MIN)
    s  = (1 - f)^2 v_k + f^2 v_{k+1}            den = 1 / (s + 1 / h)
    c_k += (1 - f) v_k den (y - p) / h          v_k += DRIFT - den ((1 - f) v_k)^2

and k + 1 alike with f for 1 - f. c starts at 0, which changes nothing, and v at `FIRST_VARIANCE`. Each
update adds `DRIFT` to the variances of its two knots: c is taken to wander, so the curve follows, and
what it learned long ago fades (v comes to rest a little above .001: a memory of some ten thousand
impressions a knot). The filter before it never forgets, and is held to what it says now by this.

The slope is 1 + (c_{k+1} - c_k) / STEP: order is kept while neighbouring c differ by less than `STEP`.
Cost: tens of nanoseconds.

References
----------
Zadrozny and Elkan, Transforming classifier scores into accurate multiclass probability estimates, KDD 2002
(curves from scores to probabilities); McMahan et al., Ad click prediction: a view from the trenches,
KDD 2013, section 7 (a calibration layer after the model).
"""

from __future__ import annotations

from typing import Final

from schemas.compiled import kernel
from schemas.runs import Float64

from .logistic_filter import H_MIN, sigmoid

CUT: Final = 4.0
STEP: Final = 0.5
N_KNOTS: Final = 17
FIRST_VARIANCE: Final = 1e-3
DRIFT: Final = 1e-7


@kernel
def _place(z: float) -> float:
    """Place of a logit among the knots, from 0 up to, and without, the last one."""
    place: float = (min(CUT, max(-CUT, z)) + CUT) / STEP
    return min(place, N_KNOTS - 1.0 - 1e-9)


@kernel
def calibrated(z: float, curve: Float64) -> float:
    """Logit z' of a logit z; `curve` (N_KNOTS,) has the c."""
    place = _place(z)
    k = int(place)
    f = place - k
    moved: float = z + (1.0 - f) * curve[k] + f * curve[k + 1]
    return moved


@kernel
def follow(z: float, y: float, curve: Float64, variances: Float64) -> None:
    """Learn what came (`y` 0 or 1) of an impression that had the logit `z`, before calibration."""
    place = _place(z)
    k = int(place)
    f = place - k
    p = sigmoid(calibrated(z, curve))
    h = max(p * (1.0 - p), H_MIN)
    left, right = (1.0 - f) * variances[k], f * variances[k + 1]
    den = 1.0 / ((1.0 - f) * left + f * right + 1.0 / h)
    step = den * (y - p) / h
    curve[k] += left * step
    curve[k + 1] += right * step
    variances[k] += DRIFT - den * left * left
    variances[k + 1] += DRIFT - den * right * right
