"""Letters that a plot's own font lacks: taken from installed fonts, else written as `?`."""

from __future__ import annotations

import functools
import re

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

OWN = "DejaVu Sans"  # comes with matplotlib
NEVER = re.compile("Last ?Resort|Emoji", re.IGNORECASE)  # boxes; pictures that are not drawn


def show(text: Text) -> None:
    """Give a text of a plot the fonts that its letters need; what no font has becomes `?`."""
    lacking = {letter for letter in text.get_text() if not letter.isspace()}
    families = []
    for name, path in installed().items():
        if found := lacking & letters_of(path):
            families.append(name)
            lacking -= found
        if not lacking:
            break
    text.set_fontfamily(families or [OWN])
    text.set_text("".join("?" if letter in lacking else letter for letter in text.get_text()))


def installed() -> dict[str, str]:
    """Return name and file of each upright font of usual weight, the plots' own first."""
    fonts = font_manager.fontManager.ttflist
    upright = {
        font.name: font.fname
        for font in sorted(fonts, key=lambda font: (font.name != OWN, font.name))
        if font.style == "normal" and font.weight in (400, "normal", "regular")
    }
    return {name: path for name, path in upright.items() if not NEVER.search(name)}


@functools.cache
def letters_of(path: str) -> frozenset[str]:
    """Return the letters of a font; none of one that cannot be read."""
    try:
        return frozenset(map(chr, FT2Font(path).get_charmap()))
    except (ValueError, OSError, RuntimeError):
        return frozenset()
