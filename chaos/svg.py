"""A small plot without a plotting library: panels above each other with one line each, and marks across all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Panel", "draw"]

_WIDTH: Final = 760
_HEIGHT: Final = 110
_LEFT: Final = 60
_TOP: Final = 24
_STYLE: Final = (
    "text{font:12px sans-serif;fill:#444}.line{fill:none;stroke:#2563eb;stroke-width:1.5}"
    ".mark{stroke:#dc2626;stroke-width:1;stroke-dasharray:2 3;opacity:.6}.frame{fill:none;stroke:#bbb}"
)


@dataclass(frozen=True)
class Panel:
    """One line over time."""

    title: str
    values: Sequence[float]


def draw(unit: str, times: Sequence[float], panels: Sequence[Panel], marks: Sequence[float]) -> str:
    """Return the picture.

    Args:
        unit: Of the times, for the axis.
        times: From 0, one for each value of each panel.
        panels: From above.
        marks: Times at which something happened.
    """
    longest = max(times) or 1.0
    inner = _WIDTH - _LEFT - 10
    height = len(panels) * (_HEIGHT + _TOP) + 34

    def across(time: float) -> float:
        return round(_LEFT + inner * time / longest, 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}">',
        f'<style>{_STYLE}</style><rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
    ]
    for number, panel in enumerate(panels):
        top = number * (_HEIGHT + _TOP) + _TOP
        high = max(panel.values) * 1.05 or 1.0
        points = " ".join(
            f"{across(time)},{round(top + _HEIGHT * (1 - value / high), 1)}"
            for time, value in zip(times, panel.values, strict=True)
        )
        parts += [
            f'<text x="{_LEFT}" y="{top - 7}">{panel.title}</text>',
            f'<rect class="frame" x="{_LEFT}" y="{top}" width="{inner}" height="{_HEIGHT}"/>',
            f'<text x="{_LEFT - 6}" y="{top + 10}" text-anchor="end">{high:,.3g}</text>',
            f'<text x="{_LEFT - 6}" y="{top + _HEIGHT}" text-anchor="end">0</text>',
            *(
                f'<line class="mark" x1="{across(mark)}" x2="{across(mark)}" y1="{top}" y2="{top + _HEIGHT}"/>'
                for mark in marks
            ),
            f'<polyline class="line" points="{points}"/>',
        ]
    parts += [
        f'<text x="{_LEFT}" y="{height - 14}">0</text>',
        f'<text x="{_WIDTH - 10}" y="{height - 14}" text-anchor="end">{longest:.0f} {unit}; '
        "dashed: a fault</text>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"
