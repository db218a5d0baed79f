"""Publish a trained model on the Hugging Face Hub: its folder and its card, in one commit."""

import contextlib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelInfo,
    constants,
    get_token,
)
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from toolkit.model.hub import TOKENIZER_FILES, WANTED, http_errors, hub_answers, is_hub_id
from toolkit.report.card_additions import with_additions
from toolkit.report.model_card import model_card
from toolkit.run.command import UserError, first_line
from toolkit.run.console import say
from toolkit.run.records import Records

FLAG, CARD = "--push_to_hub", "README.md"
# What libraries open as a model, or as something that belongs to it.
LOADED = [*WANTED, *TOKENIZER_FILES, "*.bin", "*.bin.index.json"]
LOADED += ["adapter_config.json", "chat_template.jinja"]
SAYS = {
    401: "the Hub does not accept the token; log in anew: hf auth login",
    403: "the token may not write there; check the owner's name and the token's rights",
    409: "something else is writing there; run the same command again",
    412: "something else has just written there; run the same command again",
}


def require_hub(name: str) -> None:
    """Refuse what cannot be published to: no name, no network wanted, no token, no answer."""
    if not is_hub_id(name):
        raise UserError(f"{FLAG} must be OWNER/NAME or NAME, got {name}")
    if constants.HF_HUB_OFFLINE:
        raise UserError(f"{FLAG} {name}: HF_HUB_OFFLINE forbids the network; unset it")
    if get_token() is None:
        raise UserError(f"{FLAG} {name}: no token; run: hf auth login, or set HF_TOKEN")
    if not hub_answers():
        raise UserError(
            f"{FLAG} {name}: the Hub ({constants.ENDPOINT}) does not answer; check the network"
        )


def publish(run: Records, name: str) -> None:
    """Send model/ and its card to a model repository, which is made, private, if there is none.

    `name`: OWNER/NAME, or NAME below the token's owner. A file of an earlier model there that
    would be loaded together with this one is removed in the same commit; what a person added to its
    card stays. Raises UserError, and then the repository is as it was, or empty.
    """
    metrics, folder = run.results("evaluate_model"), run.artifact("train_model", "model")
    api = HfApi()
    with refusing(name):
        name = name if "/" in name else f"{api.whoami()['name']}/{name}"
        api.create_repo(name, private=True, exist_ok=True)
        there = api.model_info(name)
        earlier = card_of(api, there)
    card = with_additions(model_card(run, metrics, name), earlier).encode()
    changes = changes_to({file.rfilename for file in there.siblings}, folder, card)
    with refusing(name):
        message = "Upload the model and its card"
        api.create_commit(name, changes, commit_message=message, parent_commit=there.sha)
    seen = "private; its settings page can make it public" if there.private else "public"
    say(f"published at {constants.ENDPOINT}/{name} ({seen})")


def card_of(api: HfApi, there: ModelInfo) -> str:
    """Return the card that a repository has, or an empty text."""
    if CARD not in {file.rfilename for file in there.siblings}:
        return ""
    place = f"{api.endpoint}/{there.id}/resolve/{there.sha}/{CARD}"
    answer = get_session().get(place, headers=build_hf_headers())
    hf_raise_for_status(answer)
    return answer.content.decode("utf-8", "replace")


@contextlib.contextmanager
def refusing(name: str) -> Iterator[None]:
    """Turn what the Hub or the network says to the body into a line, and what to do."""
    try:
        yield
    except (HfHubHTTPError, OSError, RuntimeError, ValueError, *http_errors()) as error:
        answered = isinstance(error, HfHubHTTPError)
        cause = error if answered else error.__cause__ or error  # of an upload: what the Hub said
        status = cause.response.status_code if isinstance(cause, HfHubHTTPError) else None
        broke_off = f"the Hub broke off ({first_line(cause)}); run the same command again"
        raise UserError(f"{FLAG} {name}: {SAYS.get(status, broke_off)}") from None


def changes_to(
    present: set[str], folder: Path, card: bytes
) -> list[CommitOperationAdd | CommitOperationDelete]:
    """Return what makes a repository hold this model, whole, and no part of another."""
    sent = {file.name: file for file in sorted(folder.iterdir())}
    obsolete = [
        CommitOperationDelete(path)
        for path in sorted(present - sent.keys())
        if any(fnmatch(path, pattern) for pattern in LOADED) and "/" not in path
    ]
    added = [CommitOperationAdd(path, file) for path, file in sent.items()]
    return [CommitOperationAdd(CARD, card), *added, *obsolete]
