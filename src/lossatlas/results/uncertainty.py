"""Numbers with their errors: how they are printed, and the normal interval made of them."""

from __future__ import annotations

import math

Z95 = 1.959963984540054  # the 0.975 quantile of the standard normal distribution
DASH = "–"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def normal_interval(value: float, stderr: float, bound: float = 0.0) -> tuple[float, float]:
    """Value ± (1.96 stderr + bound): a normal 95 % interval, widened by a numerical bound such as a residual.

    >>> low, high = normal_interval(1.0, 0.1)
    >>> print(f"{low:.3f} {high:.3f}")
    0.804 1.196
    """
    half = Z95 * stderr + bound
    return value - half, value + half


def number(value: float, digits: int = 4) -> str:
    """A value to so many significant digits; a dash for NaN.

    >>> number(0.000012345), number(1234567.0, 3), number(0.5), number(float("nan"))
    ('1.234×10⁻⁵', '1.23×10⁶', '0.5', '–')
    """
    if not math.isfinite(value):
        return DASH if math.isnan(value) else ("∞" if value > 0 else "−∞")
    if value != 0 and not 1e-4 <= abs(value) < 1e5:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa}×10{str(int(exponent)).translate(_SUPERSCRIPT)}".replace("-", "−")
    text = f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:,.0f}"
    return text.replace("-", "−")


def percent(share: float) -> str:
    """A share in per cent, to one place.

    >>> percent(0.92512)
    '92.5 %'
    """
    return f"{100 * share:.1f} %" if math.isfinite(share) else DASH


def plus_minus(value: float, stderr: float | None = None) -> str:
    """Value ± one standard error: two digits of the error, and the value to the same place.

    Without a (finite, positive) error the value stands alone to four digits. NaN prints as a dash.

    >>> plus_minus(0.270812, 0.00512), plus_minus(15.63, 1.2), plus_minus(0.25), plus_minus(float("nan"), 1.0)
    ('0.2708 ± 0.0051', '15.6 ± 1.2', '0.25', '–')
    >>> plus_minus(2.34567e-7, 1.2e-9)
    '(2.346 ± 0.012)×10⁻⁷'
    """
    if stderr is None or not math.isfinite(value) or not math.isfinite(stderr) or stderr <= 0:
        return number(value)
    largest = max(abs(value), stderr)
    if not 1e-3 <= largest < 1e6:
        exponent = math.floor(math.log10(largest))
        inner = plus_minus(value / 10.0**exponent, stderr / 10.0**exponent)
        return f"({inner})×10{str(exponent).translate(_SUPERSCRIPT)}"
    # Rounded first: 0.0996 has two digits at the third place, not at the fourth.
    place = 1 - math.floor(math.log10(float(f"{stderr:.1e}")))
    decimals = max(place, 0)
    return f"{round(value, place):.{decimals}f} ± {round(stderr, place):.{decimals}f}".replace("-", "−")


def interval(bounds: tuple[float, float]) -> str:
    """[low, high], both to the place that their distance makes sensible.

    >>> interval((0.80401, 1.19599)), interval((float("nan"), 1.0))
    ('[0.804, 1.196]', '–')
    """
    low, high = bounds
    if not (math.isfinite(low) and math.isfinite(high)):
        return DASH
    width = high - low
    if width < 1e-9 or max(abs(low), abs(high)) >= 1e5:
        return f"[{number(low)}, {number(high)}]"
    decimals = max((2 if width >= 0.01 else 1) - math.floor(math.log10(width)), 0)
    return f"[{low:.{decimals}f}, {high:.{decimals}f}]".replace("-", "−")


def with_interval(value: float, bounds: tuple[float, float]) -> str:
    """A value and its interval, all to the second digit of the interval's width; the value alone where it has none.

    An end that is not 0 is not printed as 0, since a verdict may hang on it.

    >>> with_interval(1.52, (1.50351, 1.53649)), with_interval(0.25, (float("nan"), 1.0))
    ('1.520 [1.504, 1.536]', '0.25')
    >>> with_interval(0.051, (0.0031, 0.158))
    '0.051 [0.003, 0.158]'
    """
    low, high = bounds
    if not all(map(math.isfinite, (value, low, high))):
        return number(value)
    width, largest = high - low, max(abs(value), abs(low), abs(high))
    if width < 1e-6 or largest >= 1e5:
        return f"{number(value)} [{number(low)}, {number(high)}]"
    decimals = max(1 - math.floor(math.log10(width)), 0)
    decimals += any(end and round(end, decimals) == 0 for end in bounds)
    value, low, high = (round(each, decimals) + 0.0 for each in (value, low, high))  # + 0.0: no minus before a zero
    return f"{value:.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}]".replace("-", "−")
