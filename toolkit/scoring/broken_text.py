"""How much of what a model writes is no text: bytes that belong to no character."""

BROKEN = "\ufffd"  # what such bytes are decoded to
MOST = 0.05  # the share of broken characters up to which a sample is text


def broken_share(texts: list[str]) -> float:
    """Return the share of the texts' characters that are broken.

    The last one of a text is not counted: the text may end amid a character.
    """
    whole = "".join(text.removesuffix(BROKEN) for text in texts)
    return whole.count(BROKEN) / len(whole) if whole else 0.0
