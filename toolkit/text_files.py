"""Find and read the plain-text files that a corpus flag names."""

import glob
from pathlib import Path

from toolkit.command import UserError

PROJECT = Path(__file__).resolve().parent.parent
TEXT_SUFFIXES = {".txt", ".md"}
OTHER_FORMATS = {
    ".json",
    ".jsonl",
    ".csv",
    ".tsv",
    ".parquet",
    ".arrow",
    ".gz",
    ".zst",
    ".xz",
    ".zip",
    ".pdf",
}


def find_text_files(names: list[str], flag: str) -> list[Path]:
    """Return the files that paths, folders (.txt and .md, at any depth) and globs name, in order.

    A relative name is looked up from the current folder, then from the project's.
    """
    found: dict[Path, None] = {}
    for name in names:
        matches = matching(name) or matching(str(PROJECT / name))
        if not matches:
            raise UserError(f"{flag} {name}: no such file or folder, and nothing matches it")
        files = [
            file
            for match in matches
            for file in (text_files_below(match) if match.is_dir() else [match])
        ]
        if not files:
            raise UserError(f"{flag} {name}: holds no .txt or .md file")
        for file in files:
            if file.suffix.lower() in OTHER_FORMATS:
                raise UserError(
                    f"{flag} {file}: {file.suffix} files are not read; give plain text (.txt, .md)"
                )
            found[file] = None
    return list(found)


def named_paths(names: list[str]) -> list[Path]:
    """Return the files and folders that names and globs stand for, without opening any."""
    return [path for name in names for path in matching(name) or matching(str(PROJECT / name))]


def read_text(path: Path, flag: str) -> str:
    """Return a UTF-8 file's text, without byte-order mark, line ends as LF; refuse binary."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{flag} {path}: cannot be read ({error.strerror})") from None
    if (zero := content.find(b"\0")) >= 0:
        raise UserError(f"{flag} {path}: is no text (a zero byte at offset {zero:,})")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{flag} {path}: byte 0x{content[error.start]:02x} at offset {error.start:,} "
            "is not UTF-8; "
            f"convert it first, for example: iconv -f latin1 -t utf-8 {path.name}"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def matching(name: str) -> list[Path]:
    path = Path(name).expanduser()
    if path.exists():
        return [path]
    return [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]


def text_files_below(folder: Path) -> list[Path]:
    files = (file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
    return sorted(file for file in files if file.suffix.lower() in TEXT_SUFFIXES)
