"""A dataset from the Hugging Face Hub: `hub:NAME` or `hub:NAME:CONFIG`."""

from typing import TypeAlias

import datasets
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from toolkit.corpus.files import HUB_PREFIX
from toolkit.model.hub import http_errors, hub_answers
from toolkit.run.command import UserError, first_line

HubSplits: TypeAlias = dict[str, datasets.Dataset] | dict[str, datasets.IterableDataset]


def load_hub_dataset(
    name: str, flag: str, streaming: bool = False, revision: str | None = None
) -> HubSplits:
    """Return the dataset's own splits. Raises UserError with what the Hub said.

    Without the Hub, a copy in the local cache is taken; to stream, the Hub must be there.
    """
    repository, _, config = name.removeprefix(HUB_PREFIX).partition(":")
    answers = hub_answers()
    if streaming:
        refuse_silent_hub(name, flag)
    if not answers:  # else the library retries for most of a minute
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        return dict(
            datasets.load_dataset(
                repository, config or None, streaming=streaming, revision=revision
            )
        )
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
        if not config and "Config name is missing" in str(error):
            listed = str(error).partition("[")[2].partition("]")[0].replace("'", "")
            raise UserError(
                f"{flag} {name}: has several configurations; give one, {name}:NAME, of: {listed}"
            ) from None
        raise UserError(f"{flag} {name}: cannot be loaded ({first_line(error)})") from None


def newest_revision(name: str, flag: str) -> str:
    """Return the commit that a Hub dataset is at, so that a stream can go on from the same text."""
    refuse_silent_hub(name, flag)
    repository = name.removeprefix(HUB_PREFIX).partition(":")[0]
    try:
        return HfApi().dataset_info(repository).sha
    except (HfHubHTTPError, HFValidationError, OSError, *http_errors()) as error:
        raise UserError(f"{flag} {name}: cannot be looked up ({first_line(error)})") from None


def refuse_silent_hub(name: str, flag: str) -> None:
    if not hub_answers():
        raise UserError(
            f"{flag} {name}: the Hub ({constants.ENDPOINT}) does not answer, and --streaming reads "
            "from it; check the network, or leave --streaming out to use a copy in the cache"
        )


def shards_of(dataset: datasets.Dataset | datasets.IterableDataset) -> list:
    """Return the files of a streamed dataset as datasets; one that is here already stays whole."""
    if isinstance(dataset, datasets.Dataset):
        return [dataset]
    count = dataset.num_shards
    return [dataset.shard(num_shards=count, index=index) for index in range(count)]
