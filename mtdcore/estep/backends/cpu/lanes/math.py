"""Elementary functions that LLVM vectorises in loops.

Numba calls libm for ``exp`` and ``log``, one number at a time. In float32 a short polynomial on the reduced
argument is as accurate as the rest of the pipeline (2 ulp) and runs eight to sixteen at a time. In float64,
the exact path, libm is kept. Without fastmath, NaN and infinity follow IEEE 754.
"""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

_F = np.float32
_LOG2E, _LN2_HI, _LN2_LO = _F(1.44269504), _F(0.693359375), _F(-2.12194440e-4)
_ROUND = _F(12582912.0)  # 1.5 * 2^23: adding and subtracting it rounds to the nearest integer
_LOWEST, _HIGHEST = _F(-87.3), _F(88.0)
_E2, _E3, _E4, _E5, _E6 = (_F(1.0 / math.factorial(n)) for n in (2, 3, 4, 5, 6))
_A3, _A5, _A7, _A9, _A11 = (_F(2.0 / n) for n in (3, 5, 7, 9, 11))
_ZERO, _ONE, _TWO, _SQRT2 = _F(0), _F(1), _F(2), _F(math.sqrt(2.0))
_LN2 = _F(math.log(2.0))


@intrinsic
def _as_float(typingctx, bits):
    """The float32 with these 32 bits."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), codegen


@intrinsic
def _as_bits(typingctx, number):
    """The 32 bits of a float32."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.IntType(32))

    return types.int32(types.float32), codegen


@njit
def _exp32(x):
    clipped = min(max(x, _LOWEST), _HIGHEST)
    n = (clipped * _LOG2E + _ROUND) - _ROUND
    r = (clipped - n * _LN2_HI) - n * _LN2_LO
    p = _ONE + r * (_ONE + r * (_E2 + r * (_E3 + r * (_E4 + r * (_E5 + r * _E6)))))
    scale = _as_float(np.int32((np.int32(n) + np.int32(127)) << np.int32(23)))
    return p * scale if x >= _LOWEST else _ZERO


@njit(error_model="numpy")  # a division that may raise prevents vectorisation
def _log1p32(x):
    """log(1 + x) for 0 <= x <= 1, by the series of 2 artanh(x / (2 + x))."""
    z = x / (_TWO + x)
    q = z * z
    return z * (_TWO + q * (_A3 + q * (_A5 + q * (_A7 + q * (_A9 + q * _A11)))))


@njit(error_model="numpy")
def _log32(x):
    """log(x) for normal x > 0."""
    bits = _as_bits(x)
    n = (bits >> np.int32(23)) - np.int32(127)
    mantissa = _as_float((bits & np.int32(0x7FFFFF)) | np.int32(0x3F800000))
    high = mantissa > _SQRT2
    mantissa = mantissa * _F(0.5) if high else mantissa
    n = n + np.int32(1) if high else n
    z = (mantissa - _ONE) / (mantissa + _ONE)
    q = z * z
    return _F(n) * _LN2 + z * (_TWO + q * (_A3 + q * (_A5 + q * (_A7 + q * _A9))))


def exp(x: float) -> float:
    """e^x; 0 below -87 in float32."""
    return math.exp(x)


def log(x: float) -> float:
    """Natural logarithm of a positive normal number."""
    return math.log(x)


def log1p_unit(x: float) -> float:
    """log(1 + x) for 0 <= x <= 1."""
    return math.log1p(x)


def _by_precision(generic, fast):
    def choose(x):
        if isinstance(x, types.Float) and x.bitwidth == 32:
            return lambda x: fast(x)
        return lambda x: generic(x)

    return choose


overload(exp)(_by_precision(math.exp, _exp32))
overload(log)(_by_precision(math.log, _log32))
overload(log1p_unit)(_by_precision(math.log1p, _log1p32))


@njit
def logaddexp(a, b):
    """log(e^a + e^b); -inf is the neutral element as long as one argument is finite."""
    high = max(a, b)
    low = min(a, b)
    return high + log1p_unit(exp(low - high))
