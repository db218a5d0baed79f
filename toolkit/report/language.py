"""Which language a text is in, where its script tells: for the `lang` of a page's elements."""

import regex

# Scripts of one language, or nearly so; kana first, for Japanese is written with Han too.
SCRIPTS = {
    "ja": r"[\p{Hiragana}\p{Katakana}]",
    "zh": r"\p{Han}",
    "ko": r"\p{Hangul}",
    "th": r"\p{Thai}",
    "lo": r"\p{Lao}",
    "km": r"\p{Khmer}",
    "my": r"\p{Myanmar}",
    "el": r"\p{Greek}",
    "he": r"\p{Hebrew}",
    "ka": r"\p{Georgian}",
    "hy": r"\p{Armenian}",
    "ta": r"\p{Tamil}",
    "te": r"\p{Telugu}",
    "kn": r"\p{Kannada}",
    "ml": r"\p{Malayalam}",
    "gu": r"\p{Gujarati}",
    "pa": r"\p{Gurmukhi}",
    "si": r"\p{Sinhala}",
}
PATTERNS = {language: regex.compile(script) for language, script in SCRIPTS.items()}
LETTER = regex.compile(r"[\p{L}]")
SHARE = 0.2  # of the letters


def language_of(text: str) -> str:
    """Return a language's code; "" where it is not known, so that a page claims none."""
    letters = len(LETTER.findall(text))
    for language, script in PATTERNS.items():
        if letters and len(script.findall(text)) > SHARE * letters:
            return language
    return ""
