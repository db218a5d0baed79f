"""The one hash of runs of tokens, by which copies are found: of test in train, of it in samples.

run_hashes(np.array([5, 7, 5, 7], np.uint64), 2)  # three hashes, the first equal to the last
"""

import numpy as np

# A window is as long as 13 tokens of English, which GPT-3's authors counted overlaps by (Brown et
# al. 2020, appendix C). In characters: of Chinese 13 tokens may be four, which all texts share.
WINDOW_CHARACTERS = 50
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio (Knuth 6.4)


def window_tokens(tokens: int, characters: int) -> int:
    """Return how many tokens a window has, of a text with so many tokens and characters."""
    return max(2, round(WINDOW_CHARACTERS * tokens / max(1, characters)))


def leak_of(share: float) -> str:
    """Return in words which share of the test split's windows train has too."""
    return f"{share:.1%} of test windows of {WINDOW_CHARACTERS} characters also in train"


def window_of(made: dict[str, dict[str, int]]) -> int:
    """Return how many tokens a window has by which copied passages are found."""
    total = {
        key: sum(part[key] for part in made.values())
        for key in ("documents", "tokens", "characters")
    }
    return window_tokens(total["tokens"] - total["documents"], total["characters"])


def run_hashes(tokens: np.ndarray, length: int) -> np.ndarray:
    """Return a 64-bit hash of every run of `length` tokens, in order. `tokens`: uint64."""
    count = max(0, len(tokens) - length + 1)
    hashes = np.zeros(count, np.uint64)
    for place in range(length):
        hashes = grow(hashes, tokens[place : place + count])
    return hashes


def grow(hashes: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Return the hashes of runs made one token longer."""
    hashes = (hashes + tokens + np.uint64(1)) * MULTIPLIER
    return hashes ^ (hashes >> np.uint64(29))
