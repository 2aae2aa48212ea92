"""LLVM vector instructions for transforms that lie side by side, one in each lane of a vector.

The FFT of scipy is compiled for the oldest supported processor, with four floats at a time. Here LLVM compiles for
the processor at hand, and LANES transforms run at once, without shuffles or remainders.

A *cell* is one complex number of each lane: LANES real parts, then LANES imaginary parts. An inverse transform is a
forward one with the two halves of every cell exchanged (``swap = LANES``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types

#: Transforms side by side: one AVX-512 register of float32, two of AVX2, four of NEON.
LANES = 16

#: Floats in a cell.
CELL = 2 * LANES

#: Lengths of the butterflies; transform lengths are products of these.
RADICES = (8, 7, 5, 4, 3, 2)

INDEX = ir.IntType(64)
_NONE = INDEX(0)


class Complex(NamedTuple):
    """A vector of complex numbers: real and imaginary parts."""

    re: Any
    im: Any


class Emitter:
    """Emits arithmetic on vectors of one float per lane; a product and a sum may be fused."""

    def __init__(self, builder: ir.IRBuilder, number: types.Float) -> None:
        self.builder, self.bytes, self.single = builder, number.bitwidth // 8, number.bitwidth == 32
        self.type = ir.VectorType(ir.FloatType() if number.bitwidth == 32 else ir.DoubleType(), LANES)

    def constant(self, value: float) -> Any:
        """A vector with this value in every lane."""
        return ir.Constant(self.type, [float(value)] * LANES)

    def sum(self, a: Any, b: Any) -> Any:
        """A + b, lane by lane."""
        return self.builder.fadd(a, b, flags=("contract",))

    def difference(self, a: Any, b: Any) -> Any:
        """A - b, lane by lane."""
        return self.builder.fsub(a, b, flags=("contract",))

    def product(self, a: Any, b: Any) -> Any:
        """A b, lane by lane."""
        return self.builder.fmul(a, b, flags=("contract",))

    def load(self, base: Any, index: Any) -> Any:
        """The vector at an index."""
        return self.builder.load(self._address(base, index), align=self.bytes)

    def store(self, value: Any, base: Any, index: Any) -> None:
        """Write a vector at an index."""
        self.builder.store(value, self._address(base, index), align=self.bytes)

    def broadcast(self, base: Any, index: Any) -> Any:
        """One number into every lane."""
        undefined, every = ir.Constant(self.type, ir.Undefined), ir.VectorType(ir.IntType(32), LANES)
        one = self.builder.load(self.builder.gep(base, [index]))
        first = self.builder.insert_element(undefined, one, ir.IntType(32)(0))
        return self.builder.shuffle_vector(first, undefined, ir.Constant(every, [0] * LANES))

    def cell(self, base: Any, start: Any, swap: Any = _NONE) -> Complex:
        """The cell that starts at this float, its halves exchanged if ``swap`` is LANES."""
        other = self.builder.sub(INDEX(LANES), swap)
        return Complex(*(self.load(base, self.builder.add(start, half)) for half in (swap, other)))

    def store_cell(self, value: Complex, base: Any, start: Any, swap: Any = _NONE) -> None:
        """Counterpart of :meth:`cell`."""
        other = self.builder.sub(INDEX(LANES), swap)
        for part, half in zip(value, (swap, other), strict=True):
            self.store(part, base, self.builder.add(start, half))

    def at(self, start: Any, index: Any, step: Any) -> Any:
        """``start + index * step``."""
        return self.builder.add(start, self.builder.mul(index, step))

    def number(self, base: Any, index: Any) -> Complex:
        """The complex number at floats ``index`` and ``index + 1``, the same in every lane."""
        following = self.builder.add(index, INDEX(1))
        return Complex(self.broadcast(base, index), self.broadcast(base, following))

    def sums(self, vectors: list[Any]) -> Any:
        """The sums over lanes of LANES vectors, as one vector, by pairwise halving."""
        width = LANES
        while len(vectors) > 1:
            width //= 2
            first = [i for i in range(2 * LANES) if i // width % 2 == 0]
            halves = [
                ir.Constant(ir.VectorType(ir.IntType(32), LANES), [i + half for i in first])
                for half in (0, width)
            ]
            vectors = [
                self.builder.fadd(*(self.builder.shuffle_vector(a, b, half) for half in halves))
                for a, b in zip(vectors[::2], vectors[1::2], strict=True)
            ]
        return vectors[0]

    def larger(self, a: Any, b: Any) -> Any:
        """The larger of two, lane by lane."""
        return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)

    def clipped(self, index: Any, low: int, high: int) -> Any:
        """An index clipped to the range from low to high."""
        above = self.builder.select(self.builder.icmp_signed("<", index, INDEX(low)), INDEX(low), index)
        return self.builder.select(self.builder.icmp_signed(">", above, INDEX(high)), INDEX(high), above)

    def exp(self, x: Any) -> Any:
        """e^x for x <= 0, accurate to 2 units in the last place; 0 where it would be denormal."""
        bits, fraction, degree = (32, 23, 6) if self.single else (64, 52, 13)
        lowest, bias, high = (-87.3, 127, 0.693359375) if self.single else (-708.0, 1023, 0.693145751953125)
        integers = ir.VectorType(ir.IntType(bits), LANES)
        rounding = self.constant(
            1.5 * 2.0**fraction
        )  # adding and subtracting it rounds to the nearest integer
        clipped = self.larger(x, self.constant(lowest))
        shifted = self.builder.fadd(self.product(clipped, self.constant(1 / math.log(2.0))), rounding)
        n = self.builder.fsub(shifted, rounding)
        rest = self.difference(clipped, self.product(n, self.constant(high)))
        rest = self.difference(rest, self.product(n, self.constant(math.log(2.0) - high)))
        series = self.constant(1.0 / math.factorial(degree))
        for power in range(degree - 1, -1, -1):
            series = self.sum(self.product(series, rest), self.constant(1.0 / math.factorial(power)))
        exponent = self.builder.add(
            self.builder.bitcast(shifted, integers), ir.Constant(integers, [bias] * LANES)
        )
        scale = self.builder.bitcast(
            self.builder.shl(exponent, ir.Constant(integers, [fraction] * LANES)), self.type
        )
        small = self.builder.fcmp_ordered("<", x, self.constant(lowest))
        return self.builder.select(small, self.constant(0.0), self.product(series, scale))

    def _address(self, base: Any, index: Any) -> Any:
        return self.builder.bitcast(self.builder.gep(base, [index]), self.type.as_pointer())

    def add(self, a: Complex, b: Complex) -> Complex:
        """Complex sum."""
        return Complex(self.sum(a.re, b.re), self.sum(a.im, b.im))

    def subtract(self, a: Complex, b: Complex) -> Complex:
        """Complex difference."""
        return Complex(self.difference(a.re, b.re), self.difference(a.im, b.im))

    def multiply(self, a: Complex, b: Complex) -> Complex:
        """Complex product."""
        return Complex(
            self.difference(self.product(a.re, b.re), self.product(a.im, b.im)),
            self.sum(self.product(a.re, b.im), self.product(a.im, b.re)),
        )

    def multiply_conjugate(self, a: Complex, b: Complex) -> Complex:
        """``a conj(b)``."""
        return self.multiply(a, Complex(b.re, self.builder.fneg(b.im)))

    def turn(self, a: Complex, step: int, steps: int) -> Complex:
        """``a exp(-2 pi i step / steps)``, 0 <= step < steps / 2."""
        if step == 0:
            return a
        if 4 * step == steps:
            return Complex(a.im, self.builder.fneg(a.re))
        angle = -2.0 * math.pi * step / steps
        return self.multiply(a, Complex(self.constant(math.cos(angle)), self.constant(math.sin(angle))))

    def transform(self, values: list[Complex]) -> list[Complex]:
        """Discrete Fourier transform: halves for even lengths, symmetric sums for odd ones."""
        n = len(values)
        if n == 1:
            return values
        if n % 2:
            return self._odd_transform(values)
        even = self.transform(values[::2])
        odd = [self.turn(v, k, n) for k, v in enumerate(self.transform(values[1::2]))]
        pairs = list(zip(even, odd, strict=True))
        return [self.add(a, b) for a, b in pairs] + [self.subtract(a, b) for a, b in pairs]

    def _odd_transform(self, values: list[Complex]) -> list[Complex]:
        n, first = len(values), values[0]
        ends = [(values[j], values[n - j]) for j in range(1, n // 2 + 1)]
        sums = [self.add(a, b) for a, b in ends]
        differences = [self.subtract(a, b) for a, b in ends]
        low, high, total = [], [], first
        for value in sums:
            total = self.add(total, value)
        for k in range(1, n // 2 + 1):
            even, odd = first, Complex(self.constant(0.0), self.constant(0.0))
            for j, (plus, minus) in enumerate(zip(sums, differences, strict=True), 1):
                angle = 2.0 * math.pi * (j * k % n) / n
                cosine, sine = self.constant(math.cos(angle)), self.constant(math.sin(angle))
                even = Complex(
                    *(self.sum(e, self.product(cosine, p)) for e, p in zip(even, plus, strict=True))
                )
                odd = Complex(*(self.sum(o, self.product(sine, m)) for o, m in zip(odd, minus, strict=True)))
            low.append(Complex(self.sum(even.re, odd.im), self.difference(even.im, odd.re)))
            high.append(Complex(self.difference(even.re, odd.im), self.sum(even.im, odd.re)))
        return [total, *low, *reversed(high)]


def emitting(number: types.Float, body: Callable[..., None]) -> Callable[..., Any]:
    """Code generator that calls ``body`` with an emitter and the arguments, arrays as pointers to their data."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        plain = [
            context.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else value
            for kind, value in zip(signature.args, args, strict=True)
        ]
        body(Emitter(builder, number), *plain)
        return context.get_dummy_value()

    return codegen
