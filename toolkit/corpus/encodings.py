"""Texts in another encoding than the one named: which it may be, and how they would read in it."""

import contextlib
from collections.abc import Iterator

import regex

from toolkit.run.command import UserError

LOOKED_AT = 1 << 16  # bytes
SHOWN = 50  # characters of a line
# The encodings that files of texts are in; where Latin letters are guessed several differ in a few.
USUAL = "gb18030 big5 cp932 euc_jp cp949 cp1251 koi8_r cp866 iso8859_5 cp1250 cp1253 cp1254 cp1255"
USUAL += " cp1256 cp1257 cp1258 cp874 iso8859_2"
WESTERN = "cp1252"  # the commonest
OF_LATIN = regex.compile(r"[\p{Latin}--[a-zA-Z]]", regex.V1)
OUTSIDE_ASCII = regex.compile(r"[^\x00-\x7f]")
# Controls but for white space, and what no standard gives a meaning to.
NO_TEXT = regex.compile(r"[[\p{Cc}\p{Co}\p{Cn}]--[\t\n\v\f\r]]", regex.V1)
MOST_NO_TEXT = 0.1


def advice(data: bytes, place: int, encoding: str, flag: str) -> str:
    """Return what to do about bytes that do not decode. `place`: of the first bad one."""
    before = data[:place]
    if encoding == "utf-8" and OUTSIDE_ASCII.search(before.decode("utf-8", "replace")):
        return "the text before it is: the file is damaged there, or joined from several; mend it"
    line = before.rfind(b"\n") + 1
    readings = dict(possible_readings(data[line:][:LOOKED_AT]))
    way = "give --encoding NAME" if flag == "--corpus" else "save the file as UTF-8"
    if not readings:
        return f"name the file's encoding ({way})"
    said = ", ".join(f'as {name} it reads "{line}"' for name, line in readings.items())
    if flag == "--corpus":
        way = " or ".join(f"--encoding {name}" for name in readings)
    return f"name the file's encoding: {said}; where that is right: {way}"


def possible_readings(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield the likely encoding, and among Latin ones the commonest, with a line as it reads."""
    import charset_normalizer  # only such files pay for it

    usual = [*USUAL.split(), WESTERN]
    best = charset_normalizer.from_bytes(data, cp_isolation=usual).best()
    names = [best.encoding] if best else []
    if not names or OF_LATIN.search(data.decode(names[0], "ignore")):
        names.insert(0, WESTERN)
    for name in dict.fromkeys(names):
        with contextlib.suppress(UnicodeDecodeError):
            text = data[: data.rfind(b"\n") + 1 or len(data)].decode(name)
            if share_of_no_text(text) <= MOST_NO_TEXT:
                yield name, telling_line(text)


def telling_line(text: str) -> str:
    """Return the first line with more than ASCII in it, from about there on."""
    found = OUTSIDE_ASCII.search(text)
    start = found.start() if found else 0
    begin = max(text.rfind("\n", 0, start) + 1, start - SHOWN // 2)
    return " ".join(text[begin:].split("\n", 1)[0].split())[:SHOWN]


def share_of_no_text(text: str) -> float:
    return len(NO_TEXT.findall(text)) / len(text) if text else 0.0


def refuse_no_text(text: str, encoding: str, where: str) -> None:
    """Refuse what is no text in the encoding that was named: another one was meant."""
    if share_of_no_text(text) > MOST_NO_TEXT:
        raise UserError(
            f"{where}: as {encoding} it is no text, but control or private characters; name the "
            "encoding that it has (without --encoding the likely one is said)"
        )
