"""Numbers as text, the same on the terminal, in Markdown and in the report."""

from collections.abc import Sequence


def percent(gain: float | None) -> str:
    """Write a relative difference, such as ``+12.3%``."""
    return "from zero" if gain is None else f"{gain:+.1%}"


def p_text(p_value: float) -> str:
    """Write a p-value, such as ``p = .012`` or ``p < .001``."""
    return "p < .001" if p_value < 0.001 else f"p = {p_value:.3f}".replace("0.", ".")


def p_figure(p_value: float) -> str:
    """Write a p-value where its column says what it is, such as ``.012`` or ``< .001``."""
    return p_text(p_value).removeprefix("p ").removeprefix("= ")


def figure(value: float) -> str:
    """Write a metric between 0 and 1 as the paper does: ``.0123``."""
    return f"{value:.4f}".removeprefix("0")


def listing(names: Sequence[str]) -> str:
    """Write ``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def number_of(count: int, what: str) -> str:
    """Write ``1 epoch`` or ``1,200 epochs``."""
    return f"{count:,} {what}{'s' * (count != 1)}"


def duration(seconds: float | None) -> str:
    """Write seconds with as many digits as mean something."""
    if seconds is None:
        return ""
    return f"{seconds:,.0f}" if seconds >= 100 else f"{seconds:.3g}"
