"""A bar chart as SVG, by hand: a dozen rectangles need no plotting library in anybody's environment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Bar", "Panel", "svg"]

_WIDTH = 860
_LABEL = 130
_ROW = 20
_TITLE = 34
_GAP = 18
_COLUMNS = 2


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        label: Beside it.
        value: Its length; None draws the text alone.
        text: Behind it.
        is_ours: Drawn in the other colour.
    """

    label: str
    value: float | None
    text: str
    is_ours: bool = False


@dataclass(frozen=True)
class Panel:
    """Bars that share a scale, which begins at 0."""

    title: str
    bars: Sequence[Bar]


def svg(title: str, panels: Sequence[Panel]) -> str:
    """Draw panels side by side, two in a row."""
    width = (_WIDTH - _GAP) // _COLUMNS
    parts: list[str] = []
    top = 40
    for start in range(0, len(panels), _COLUMNS):
        row = panels[start : start + _COLUMNS]
        for column, panel in enumerate(row):
            parts += _panel(panel, column * (width + _GAP) + 8, top, width - 16)
        top += max(_TITLE + _ROW * len(panel.bars) for panel in row) + _GAP
    style = (
        "text{font:12px system-ui,sans-serif;fill:#1f2328}.h{font-weight:600;font-size:13px}"
        ".t{font-weight:600;font-size:15px}.v{fill:#59636e}.b{fill:#a9b6c4}.o{fill:#b3261e}.bg{fill:#ffffff}"
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" width="{_WIDTH}" height="{top}"'
            f' role="img" aria-label="{escape(title, quote=True)}">',
            f"<style>{style}</style>",
            f'<rect class="bg" width="{_WIDTH}" height="{top}"/>',
            f'<text class="t" x="8" y="24">{escape(title)}</text>',
            *parts,
            "</svg>",
            "",
        ]
    )


def _panel(panel: Panel, left: int, top: int, width: int) -> list[str]:
    most = max((bar.value for bar in panel.bars if bar.value is not None), default=0.0)
    room = width - _LABEL - 70
    parts = [f'<text class="h" x="{left}" y="{top + 16}">{escape(panel.title)}</text>']
    for i, bar in enumerate(panel.bars):
        y = top + _TITLE + i * _ROW - 6
        length = 0.0 if bar.value is None or not most else max(1.0, bar.value / most * room)
        kind = "o" if bar.is_ours else "b"
        parts.append(
            f'<text x="{left + _LABEL - 8}" y="{y + 12}" text-anchor="end">{escape(bar.label)}</text>'
        )
        if bar.value is not None:
            parts.append(
                f'<rect class="{kind}" x="{left + _LABEL}" y="{y}" width="{length:.1f}" height="15" rx="2"/>'
            )
        parts.append(
            f'<text class="v" x="{left + _LABEL + length + 6:.1f}" y="{y + 12}">{escape(bar.text)}</text>'
        )
    return parts
