"""Logarithms and exponentials that have the same bits on every CPU.

NumPy and the C library choose their `log1p` and `exp` by the CPU, and these differ in the last bit. Here each step is
one correctly rounded operation of IEEE 754 (+, -, *, / and shifts of the exponent). Measurements: docs/lab/lightgbm.md.
"""

import math

import numpy as np

_LN2 = 0.6931471805599453
# The logarithm of 2 in two parts: the first has 32 bits, so that its products with small whole numbers are exact.
_LN2_HIGH, _LN2_LOW = float.fromhex("0x1.62e42feep-1"), float.fromhex("0x1.a39ef35793c76p-33")
_LOG_TERMS = [2 / (2 * power + 1) for power in range(11)]
_EXP_TERMS = [1 / math.factorial(power) for power in range(15)]

STEPS = float(1 << 20)
"""Features are whole multiples of 1 / STEPS, so that values which differ only by rounding become equal."""


def log1p(counts: np.ndarray) -> np.ndarray:
    """Returns log(1 + count) of counts below 2**53, float64, within 2 units in the last place."""
    return log(counts + 1.0)


def log(values: np.ndarray) -> np.ndarray:
    """Returns the natural logarithm of positive values, float64, within 2 units in the last place of 1 or more."""
    mantissa, exponent = np.frexp(values)
    small = mantissa < 0.7071067811865476
    mantissa, exponent = np.where(small, 2 * mantissa, mantissa), exponent - small
    # log(m) = 2 (s + s^3/3 + s^5/5 + ...), where |s| is below 0.172.
    s = (mantissa - 1) / (mantissa + 1)
    return exponent * _LN2 + s * _polynomial(_LOG_TERMS, s * s)


def softmax(values: np.ndarray) -> np.ndarray:
    """Returns exp(value) over the sum of its row [rows, classes], float64."""
    powers = _exp(values - values.max(axis=1, keepdims=True))
    total = powers[:, 0].copy()
    for column in powers.T[1:]:  # in this order, whatever the layout
        total += column
    return powers / total[:, None]


def on_grid(values: np.ndarray) -> np.ndarray:
    """Returns values rounded to whole multiples of 1 / STEPS, float64; symmetric in the sign."""
    return np.rint(values * STEPS) / STEPS


def _exp(values: np.ndarray) -> np.ndarray:
    """Returns e to the power of `values`, none above 0."""
    values = np.maximum(values, -1000.0)  # 0, as for everything below
    power = np.rint(values / _LN2)
    rest = values - power * _LN2_HIGH - power * _LN2_LOW
    return np.ldexp(_polynomial(_EXP_TERMS, rest), power.astype(np.int32))


def _polynomial(coefficients: list[float], x: np.ndarray) -> np.ndarray:
    """Returns coefficients[0] + coefficients[1] x + ..., with no fused operations."""
    result = np.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        result = result * x + coefficient
    return result
