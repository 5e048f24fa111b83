"""Half rounds of transport as GPU kernels in Triton; `losses.transport.fused` launches them.

Nothing of size points x cells is kept: a program owns a few outputs, goes through the other side tile by tile, and
keeps running sums. A tile has shape (DEEP, OUT, LANES): an output's sum is spread over LANES threads or so, each of
which adds up DEEP terms by itself, so that threads meet once, after the loop. Sums are made in a fixed order, without
atomic additions: the same bits every time.

Exponents are in base 2 (the hardware's exponential is 2^x). Their rounding is then that of numbers 1.44 times as large
as in base e, in float32 at worst one more unit in the last place of the largest exponent.

Checked with Triton 3.2, the oldest that a torch of ours brings, and 3.9. Annotations are objects here, not strings, as
its interpreters want them, and only those of constants have a meaning to it.
"""

import triton
import triton.language as tl

__all__ = ["half_round", "half_step"]

_LN2 = tl.constexpr(0.6931471805599453)
_LOG2E = tl.constexpr(1.4426950408889634)
_NOTHING = tl.constexpr(float("-inf"))
_FLOOR = tl.constexpr(1e-16)
"""`losses.transport.FLOOR`; a kernel may not read a plain number from outside."""


@triton.jit
def _absorb(exponent, largest, total):
    """Adds 2^exponent, (DEEP, OUT, LANES), to sums that are total * 2^largest, (OUT, LANES)."""
    reached = tl.maximum(largest, tl.max(exponent, 0))
    base = tl.where(reached == _NOTHING, 0.0, reached)  # -inf minus -inf would be NaN
    return reached, total * tl.exp2(largest - base) + tl.sum(tl.exp2(exponent - base[None, :, :]), 0)


@triton.jit
def _log2(largest, total):
    """The base-2 logarithm of the sum over LANES; -inf where nothing was added."""
    peak = tl.max(largest, 1)
    base = tl.where(peak == _NOTHING, 0.0, peak)
    return base + tl.log2(tl.sum(total * tl.exp2(largest - base[:, None]), 1))


@triton.jit(do_not_specialize=["count", "others", "here_step", "there_step"])
def half_round(
    into, before, mass, weight, here, there, stopped, gaps, count, others, here_step, there_step, rate,
    LOG: tl.constexpr, TEST: tl.constexpr, OUT: tl.constexpr, LANES: tl.constexpr, DEEP: tl.constexpr,
):  # fmt: skip
    """One side of a round, over squared distances; grid (blocks of outputs, images).

    LOG: into_q = mass_q - log2 sum_s 2^(weight_s - rate |q - s|^2), masses and weights as base-2 logarithms. Otherwise
    into_q = mass_q / (sum_s weight_s 2^(-rate |q - s|^2) + 1e-16). Of an image that has stopped nothing is written.

    Args:
        into: (B, count).
        before: (B, count), what `into` replaces; may be the same memory.
        mass: (B, count).
        weight: (B, others).
        here: Coordinates of the outputs, (2, count) at every `here_step`.
        there: Coordinates of the summed side, (2, others) at every `there_step`.
        stopped: (B,), not 0 of images that are left alone.
        gaps: (B, blocks), with TEST: each block's part of the squared distance of the marginal before to the masses.
        count: Outputs of an image.
        others: Terms of a sum.
        here_step: From one image's coordinates to the next one's; 0 if all have the same.
        there_step: See there.
        rate: Above 0.
        LOG: See above.
        TEST: Whether `gaps` is wanted.
        OUT: Outputs of a program.
        LANES: See the module.
        DEEP: See the module.
    """
    image = tl.program_id(1).to(tl.int64)
    if tl.load(stopped + image) != 0:
        return
    q = tl.program_id(0) * OUT + tl.arange(0, OUT)
    inside = q < count
    here += image * here_step
    there += image * there_step
    weight += image * others
    x = tl.load(here + q, mask=inside, other=0.0)[None, :, None]
    y = tl.load(here + count + q, mask=inside, other=0.0)[None, :, None]
    place = tl.arange(0, DEEP)[:, None] * LANES + tl.arange(0, LANES)[None, :]
    largest = tl.full([OUT, LANES], _NOTHING, tl.float32)
    total = tl.zeros([OUT, LANES], tl.float32)
    for first in range(0, others, DEEP * LANES):
        s = first + place
        there_is = s < others
        w = tl.load(weight + s, mask=there_is, other=_NOTHING if LOG else 0.0)[:, None, :]
        dx = tl.load(there + s, mask=there_is, other=0.0)[:, None, :] - x
        dy = tl.load(there + others + s, mask=there_is, other=0.0)[:, None, :] - y
        away = (dx * dx + dy * dy) * rate
        if LOG:
            largest, total = _absorb(w - away, largest, total)
        else:
            total += tl.sum(w * tl.exp2(-away), 0)
    at = image * count + q
    own = tl.load(mass + at, mask=inside, other=0.0)
    old = tl.load(before + at, mask=inside, other=0.0)
    if LOG:
        new = own - _log2(largest, total)
    else:
        found = tl.sum(total, 1)
        new = own / (found + _FLOOR)
    tl.store(into + at, new, mask=inside)
    if TEST:
        if LOG:
            # The plan's marginal was the mass times e^t. Near 0, e^t - 1 by its series, which keeps the digits.
            filled = own > _NOTHING
            t = (tl.where(filled, old, 0.0) - tl.where(filled, new, 0.0)) * _LN2
            more = tl.where(tl.abs(t) < 0.01, t * (1 + t * (0.5 + t / 6)), tl.exp2(t * _LOG2E) - 1)
            off = tl.exp2(own) * more
        else:
            off = own - old * found
        gap = tl.sum(tl.where(inside, off * off, 0.0), 0)
        tl.store(gaps + image * tl.num_programs(0) + tl.program_id(0), gap)


@triton.jit(do_not_specialize=["step", "count", "others"])
def half_step(
    into, before, log_weight, potential, cost, strengths, kept, step, count, others, reach,
    ROWS: tl.constexpr, OUT: tl.constexpr, LANES: tl.constexpr, DEEP: tl.constexpr,
):  # fmt: skip
    """One side of an annealing step, over a matrix of costs; grid (blocks of outputs, images).

    With eps the image's strength at this step and k its share of the old value,

        into_q = k before_q - (1 - k) eps / (1 + eps / reach) log sum_s exp(log_weight_s + (potential_s - C_qs) / eps).

    Args:
        into: (B, count).
        before: (B, count), what `into` replaces; may be the same memory.
        log_weight: (B, others).
        potential: (B, others).
        cost: (B, count, others) if ROWS, else (B, others, count).
        strengths: (steps, B).
        kept: (steps, B), k. Where it is 1 nothing is computed.
        step: Row of these.
        count: Outputs of an image.
        others: Terms of a sum.
        reach: Above 0.
        ROWS: See `cost`.
        OUT: Outputs of a program.
        LANES: See the module.
        DEEP: See the module.
    """
    image = tl.program_id(1).to(tl.int64)
    q = tl.program_id(0) * OUT + tl.arange(0, OUT)
    inside = q < count
    row = step * tl.num_programs(1) + image
    keep = tl.load(kept + row)
    old = tl.load(before + image * count + q, mask=inside, other=0.0)
    into += image * count
    if keep == 1.0:
        tl.store(into + q, old, mask=inside)
        return
    eps = tl.load(strengths + row)
    rate = _LOG2E / eps
    log_weight += image * others
    potential += image * others
    cost += image * count * others
    place = tl.arange(0, DEEP)[:, None] * LANES + tl.arange(0, LANES)[None, :]
    wide = q.to(tl.int64)[None, :, None]
    largest = tl.full([OUT, LANES], _NOTHING, tl.float32)
    total = tl.zeros([OUT, LANES], tl.float32)
    for first in range(0, others, DEEP * LANES):
        s = first + place
        there_is = s < others
        w = tl.load(log_weight + s, mask=there_is, other=_NOTHING) * _LOG2E
        w += tl.load(potential + s, mask=there_is, other=0.0) * rate
        pair = wide * others + s[:, None, :] if ROWS else s.to(tl.int64)[:, None, :] * count + wide
        c = tl.load(cost + pair, mask=there_is[:, None, :] & inside[None, :, None], other=0.0)
        largest, total = _absorb(w[:, None, :] - c * rate, largest, total)
    found = -eps / (1 + eps / reach) * _LN2 * _log2(largest, total)
    tl.store(into + q, keep * old + (1 - keep) * found, mask=inside)
