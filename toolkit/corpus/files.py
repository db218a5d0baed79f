"""The files that a corpus flag names, and the text in them, read in chunks: memory stays flat."""

from __future__ import annotations

import codecs
import glob
import gzip
import io
import itertools
import lzma
import os
import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import zstandard

from toolkit.run.command import UserError
from toolkit.run.files import PROJECT, at_home
from toolkit.run.lazily import lazily

with lazily():
    from toolkit.corpus.encodings import advice, refuse_no_text

TABLES = {".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow"}
BINARY = {".parquet", ".arrow"}  # of these: no encoding counts
TEXTS = {".txt", ".md"}
NEVER_TEXT = {".pdf", ".doc", ".docx", ".epub", ".zip", ".tar", ".bz2", ".7z", ".html", ".htm"}
DAMAGED = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, zstandard.ZstdError)
COMPRESSED = {".gz": gzip.open, ".xz": lzma.open, ".zst": open}  # see `unpack_zst`
READ_AT_ONCE = 1 << 20  # bytes
MARK = "\ufeff"  # byte-order mark; within a text it shows where files were joined
MARKS = {  # how a file begins that has a mark -> its encoding
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16's, which is the beginning of it
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
HUB_PREFIX = "hub:"  # of a dataset on the Hugging Face Hub


def find_files(names: list[str], flag: str) -> list[Path]:
    """Return the files that paths, folders (what can be read below them) and globs name, in order.

    A relative name is looked up from the current folder, then from the project's.
    """
    found: dict[Path, None] = {}
    for name in names:
        matches = matching(name)
        if not matches:
            raise UserError(f"{flag} {name}: no such file or folder, and nothing matches it")
        files = [
            file for match in matches for file in (below(match) if match.is_dir() else [match])
        ]
        if not files:
            kinds = " ".join(sorted(TEXTS | TABLES))
            raise UserError(f"{flag} {name}: holds no file that can be read ({kinds})")
        for file in files:
            if suffix_of(file) in NEVER_TEXT:
                raise UserError(f"{flag} {file}: {suffix_of(file)} is not read; convert it to text")
            found[file] = None
    return list(found)


def named_paths(names: list[str]) -> list[Path]:
    """Return the files and folders that names and globs stand for, without opening any."""
    return [path for name in names for path in matching(name)]


def matching(name: str) -> list[Path]:
    for path in (at_home(name), PROJECT / name):
        if path.exists():
            return [path]
        if matches := sorted(glob.glob(str(path), recursive=True)):
            return [Path(match) for match in matches]
    return []


def below(folder: Path) -> list[Path]:
    """Return the readable files below a folder, in order. Links to folders are not followed."""
    found = []
    for path, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(path) / name for name in sorted(names) if not name.startswith(".")]
    return sorted(file for file in found if suffix_of(file) in TEXTS | TABLES)


def name_of(path: Path) -> str:
    """Return a file's name as text: bytes of another encoding in it are written as \\xb5."""
    return os.fsencode(path.name).decode("utf-8", "backslashreplace")


def suffix_of(path: Path) -> str:
    """Return the suffix that tells the format: `.jsonl` for `x.jsonl.gz`."""
    name = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
    return name.suffix.lower()


def read_text(path: Path, flag: str, encoding: str = "utf-8") -> str:
    """Return a file's whole text. See `read_chunks`."""
    return "".join(read_chunks(path, flag, encoding))


def read_chunks(path: Path, flag: str, encoding: str = "utf-8") -> Iterator[str]:
    """Yield a text file in chunks: byte-order marks dropped, every line end as LF.

    A file that begins with UTF-16's or UTF-32's mark is read as such. Refuses zero bytes and bytes
    that the encoding does not allow, with their offset, and what is no text in it.
    """
    blocks = read_bytes(path, flag)
    first = next(blocks)
    if is_utf8(encoding):
        encoding = next((name for mark, name in MARKS.items() if first.startswith(mark)), encoding)
    decoder = codecs.getincrementaldecoder(encoding)()
    line_ends = io.IncrementalNewlineDecoder(decoder, translate=True)
    wide = encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32"))
    offset = 0
    for block in itertools.chain([first], blocks):
        if not wide and (zero := block.find(b"\0")) >= 0:
            raise UserError(f"{flag} {path}: {of_zero_bytes(block, zero, offset)}")
        offset += len(block)
        try:
            text = line_ends.decode(block, final=not block).replace(MARK, "")
            if block is first and not is_utf8(encoding):
                refuse_no_text(text, encoding, f"{flag} {path}")
            yield text
        except UnicodeDecodeError as error:
            raise UserError(where_undecodable(error, path, flag, encoding, offset)) from None
        except UnicodeError as error:  # UTF-16 and UTF-32 want a mark at the beginning
            raise UserError(
                f"{flag} {path}: is not {encoding} ({error}); without a mark give --encoding "
                f"{encoding}-le or {encoding}-be"
            ) from None


def of_zero_bytes(block: bytes, first: int, offset: int) -> str:
    """Return what a text with zero bytes may be. `first`: where in the block; `offset`: its own."""
    odd, even = block[1::2].count(0), block[::2].count(0)
    if max(odd, even) > max(1, len(block) / 40) and min(odd, even) == 0:
        little = (odd > even) == (offset % 2 == 0)
        ending = "le" if little else "be"
        return f"looks like UTF-16 without its mark; give --encoding utf-16-{ending}"
    return f"is no text (a zero byte at offset {offset + first:,})"


def read_bytes(path: Path, flag: str) -> Iterator[bytes]:
    """Yield a file's content, decompressed, in blocks; an empty block marks the end."""
    try:
        with COMPRESSED.get(path.suffix.lower(), open)(path, "rb") as file:
            blocks = iter(partial(file.read, READ_AT_ONCE), b"")
            yield from unpack_zst(blocks) if path.suffix.lower() == ".zst" else blocks
            yield b""
    except DAMAGED as error:
        raise UserError(f"{flag} {path}: is cut short or damaged ({error})") from None
    except OSError as error:
        raise UserError(f"{flag} {path}: cannot be read ({error.strerror or error})") from None


def unpack_zst(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield what is in frames of Zstandard. Unlike the library's own file, refuses a cut one."""
    frame = None
    for block in blocks:
        while block:
            frame = frame or zstandard.ZstdDecompressor().decompressobj()
            if data := frame.decompress(block):
                yield data
            block = frame.unused_data if frame.eof else b""
            frame = None if frame.eof else frame
    if frame:
        raise zstandard.ZstdError("its last frame does not end")


def where_undecodable(
    error: UnicodeDecodeError, path: Path, flag: str, encoding: str, end: int
) -> str:
    """Return where a file does not decode. `end`: its bytes read so far, bad ones included."""
    where = end - len(error.object) + error.start
    bad = f"{flag} {path}: byte 0x{error.object[error.start]:02x} at offset {where:,}"
    known = "utf-8" if is_utf8(encoding) else encoding
    return f"{bad} is not {known}; {advice(error.object, error.start, known, flag)}"


def is_utf8(encoding: str) -> bool:
    return codecs.lookup(encoding).name == "utf-8"
