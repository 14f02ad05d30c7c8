"""Numbers as people write them: 8/255, 19.7 %."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator

from repulse.common.notice import notice


def parse_number(value: Any) -> Any:
    """A number from text such as '8/255' or '0.1'; anything that is not text passes through.

    Raises:
        ValueError: if the text is no number.
    """
    if not isinstance(value, str):
        return value
    try:
        over, _, under = value.partition("/")
        return float(over) / float(under) if under else float(value)
    except (ValueError, ZeroDivisionError):
        raise ValueError("expected a number such as 8/255 or 0.1") from None


def check_radius(norm: str, eps: float) -> None:
    """Refuse an L-inf radius of at least 1, and remark on one that turns black and white grey.

    Raises:
        ValueError: if the ball holds every image, as 8 does where 8/255 was meant.
    """
    refuse_radius(norm, eps, "eps")
    if norm == "linf" and eps > 0.5:
        notice(f"eps {eps:g} in L-inf is so wide that black and white can both be turned to grey")


def refuse_radius(norm: str, radius: float, what: str = "radius") -> None:
    """Refuse an L-inf radius of at least 1.

    Raises:
        ValueError: if the ball holds every image, as 8 does where 8/255 was meant.
    """
    if norm == "linf" and radius >= 1:
        raise ValueError(
            f"{what} {radius:g} in L-inf reaches every image, for pixels lie in [0, 1]; did you mean {radius:g}/255?"
        )


def in_255ths(value: float) -> str:
    """A pixel distance as people write it: '8/255' for a whole number of grey levels, else a short decimal."""
    levels = value * 255
    if 0 < value < 1 and abs(levels - round(levels)) < 1e-6:
        return f"{round(levels)}/255"
    return f"{value:.4g}"


def in_percent(share: float) -> str:
    """A share in [0, 1] as a percentage to a tenth, in plain text: '19.7 %'."""
    return f"{100 * share:.1f} %"


Number = Annotated[float, BeforeValidator(parse_number)]
"""A float that may be written as a fraction."""
