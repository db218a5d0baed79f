"""A dataset from the Hugging Face Hub: `hub:NAME` or `hub:NAME:CONFIG`."""

import datasets
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from toolkit.command import UserError, first_line
from toolkit.hub import http_errors, hub_answers

PREFIX = "hub:"


def load_hub_dataset(name: str, flag: str) -> dict[str, datasets.Dataset]:
    """Return the dataset's own splits. Raises UserError with what the Hub said.

    Without the Hub, a copy in the local cache is taken.
    """
    repository, _, config = name.removeprefix(PREFIX).partition(":")
    answers = hub_answers()
    if not answers:  # else the library retries for most of a minute
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        return dict(datasets.load_dataset(repository, config or None))
    except (datasets.exceptions.DatasetNotFoundError, HFValidationError):
        raise UserError(f"{flag} {name}: the Hub has no such dataset") from None
    except (ConnectionError, FileNotFoundError) as error:
        if answers:
            reason = first_line(error)
            raise UserError(f"{flag} {name}: the Hub broke off ({reason}); run it again") from None
        raise UserError(
            f"{flag} {name}: not in the cache, and the Hub ({constants.ENDPOINT}) "
            "does not answer; check the network, or give files"
        ) from None
    except (ValueError, OSError, HfHubHTTPError, RuntimeError, *http_errors()) as error:
        raise UserError(f"{flag} {name}: cannot be loaded ({first_line(error)})") from None
