"""The Hugging Face Hub: fetch a model's files once, and answer quickly when it is out of reach."""

from __future__ import annotations

import functools
from pathlib import Path

from toolkit.run.command import UserError, first_line
from toolkit.run.files import PROJECT, at_home
from toolkit.run.lazily import lazily

with lazily():
    from huggingface_hub import constants, errors, snapshot_download, try_to_load_from_cache
    from huggingface_hub.utils import get_session, validate_repo_id

BUNDLED = "data/gpt2-mini"  # where gpt2 cannot be had
ANSWER_SECONDS = 4.0
WANTED = ["config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json"]
PICKLED = ["pytorch_model*.bin", "pytorch_model*.bin.index.json"]  # where there is nothing better
TOKENIZER_FILES = ["tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"]
TOKENIZER_FILES += ["special_tokens_map.json", "added_tokens.json", "vocab.txt", "*.model"]


@functools.cache
def hub_answers() -> bool:
    """Tell whether the Hub (HF_ENDPOINT) answers within seconds. Asked once per process."""
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=ANSWER_SECONDS)
    except (OSError, RuntimeError, ValueError, *http_errors()):
        return False
    return True


def http_errors() -> tuple[type[Exception], ...]:
    """Return the base error of the HTTP library that this huggingface_hub uses."""
    module = __import__(type(get_session()).__module__.split(".")[0])
    return (getattr(module, "RequestError", None) or module.RequestException,)


def is_hub_id(name: str) -> bool:
    """Tell whether a name could be a Hub id (`gpt2`, `owner/name`) rather than a path."""
    try:
        validate_repo_id(name)
    except errors.HFValidationError:
        return False
    return True


def cached_folder(name: str, revision: str | None = None, weights: bool = True) -> Path | None:
    """Return the cached copy of a Hub model, or None where it is not all there."""
    config = try_to_load_from_cache(name, "config.json", revision=revision)
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    has_weights = not weights or holds(folder, [*WANTED[2:3], *PICKLED[:1]])
    has_tokenizer = holds(folder, ["tokenizer.json", "vocab.json", "vocab.txt", "*.model"])
    return folder if has_weights and has_tokenizer else None


def holds(folder: Path, patterns: list[str]) -> bool:
    """Tell whether a folder has a file of one of these patterns."""
    return any(any(folder.glob(pattern)) for pattern in patterns)


def fetch_folder(
    name: str, revision: str | None = None, weights: bool = True, flag: str = "--model"
) -> Path:
    """Return a local folder with a Hub model's files: never code, and pickles only where it has no
    safetensors.

    `weights=False` asks for the tokenizer alone. Raises UserError with what the Hub said.
    """
    if not hub_answers():
        if folder := cached_folder(name, revision, weights):
            return folder
        raise UserError(
            f"{flag} {name}: no such folder, not in the cache, "
            f"and the Hub ({constants.ENDPOINT}) does not answer; "
            "check the network or the spelling, or give a local folder"
        )
    wanted = TOKENIZER_FILES + (WANTED if weights else ["config.json"])
    try:
        folder = download(name, revision, wanted)
        if weights and not holds(folder, ["*.safetensors"]):
            folder = download(name, revision, PICKLED)
        return folder
    except errors.RevisionNotFoundError:
        raise UserError(f"{flag} {name}: the Hub has no revision {revision} of it") from None
    except errors.GatedRepoError:
        raise UserError(
            f"{flag} {name}: access must be asked for on its Hub page, then: hf auth login"
        ) from None
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        raise UserError(f"{flag} {name}: no such folder, and no such model on the Hub") from None
    except (
        errors.HfHubHTTPError,
        errors.LocalEntryNotFoundError,
        OSError,
        RuntimeError,
        *http_errors(),
    ) as error:
        if folder := cached_folder(name, revision, weights):
            return folder
        raise UserError(
            f"{flag} {name}: the Hub broke off ({first_line(error)}); run the same command again"
        ) from None


def download(name: str, revision: str | None, patterns: list[str]) -> Path:
    """Return the cached folder of a Hub model, with its files of these patterns."""
    return Path(
        snapshot_download(name, revision=revision, allow_patterns=patterns, ignore_patterns=["*/*"])
    )


def find_model(model: str, revision: str | None) -> tuple[str, Path, str]:
    """Return name and folder of `--model` (auto, a folder, a Hub id), and why it is that one.

    Raises UserError where a named model cannot be had: it is never silently replaced.
    """
    if model != "auto":
        folder = find_folder(model, revision)
        return model, folder, "from the Hub" if revision_of(folder) else "from this folder"
    if folder := cached_folder("gpt2", revision):
        return "gpt2", folder, "auto: gpt2 is in the cache"
    try:
        if hub_answers():
            return "gpt2", fetch_folder("gpt2", revision), "auto: gpt2 from the Hub"
        lacking = "gpt2 is not cached and the Hub does not answer"
    except UserError as error:
        lacking = f"gpt2 cannot be had ({error})"
    if revision:
        raise UserError(f"--model_revision {revision}: {lacking}")
    return BUNDLED, bundled_folder(), f"auto: {lacking}, so the bundled one"


def bundled_folder() -> Path:
    return PROJECT / BUNDLED


def find_folder(
    name: str, revision: str | None = None, weights: bool = True, flag: str = "--model"
) -> Path:
    """Return the folder that a path or a Hub id names. Raises UserError where it cannot be had."""
    path = at_home(name)
    if path.is_dir():
        if revision:
            raise UserError(f"--model_revision {revision}: {name} is a folder; it needs a Hub id")
        return path
    if path.exists() or not is_hub_id(name):
        raise UserError(f"{flag} {name}: no such folder; give a folder, or a Hub id such as gpt2")
    return fetch_folder(name, revision, weights, flag)


def revision_of(folder: Path) -> str | None:
    """Return the commit a cached folder holds, or None for a folder of one's own."""
    return folder.name if folder.parent.name == "snapshots" else None
