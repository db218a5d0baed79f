"""Conversations as text to learn from: the assistant's answers, and the end of each.

User: Is the fog in?
Assistant: She came at noon.<|endoftext|>User: Will she stay?
Assistant: ...

The form stands here twice: `as_conversation` makes it for training and answering, and TEMPLATE,
which is saved with the tokenizer, makes the same text for other programs. A test holds them
together.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerFast

from toolkit.corpus.document import Document
from toolkit.run.command import UserError
from toolkit.run.console import count

SYSTEM, USER, ASSISTANT = "System: ", "User: ", "Assistant:"
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
ROLES |= {"human": "user", "gpt": "assistant"}  # of ShareGPT

TEMPLATE = (
    "{%- for message in messages if message['content'] | trim -%}"
    "{%- if message['role'] == 'assistant' -%}"
    f"{{{{- '{ASSISTANT}' -}}}}"
    "{% generation %}{{- ' ' + message['content'] | trim + eos_token -}}{% endgeneration %}"
    "{%- elif message['role'] in ['system', 'developer'] -%}"
    f"{{{{- '{SYSTEM}' + message['content'] | trim + '\\n' -}}}}"
    "{%- elif message['role'] == 'user' -%}"
    f"{{{{- '{USER}' + message['content'] | trim + '\\n' -}}}}"
    "{%- else -%}{{- raise_exception('there are the roles system, user and assistant') -}}"
    "{%- endif -%}{%- endfor -%}"
    f"{{%- if add_generation_prompt -%}}{{{{- '{ASSISTANT}' -}}}}{{%- endif -%}}"
)


def give_template(tokenizer: PreTrainedTokenizerFast) -> None:
    """Let the tokenizer write conversations as training read them; it is saved with that."""
    tokenizer.chat_template = TEMPLATE


class Message(NamedTuple):
    """A turn of a conversation. `role`: system, user or assistant."""

    role: str
    content: str


def as_conversation(name: str, messages: Iterable[Message]) -> Document:
    """Return a conversation as parts, what is given and what is learned in turn.

    A turn without text is left out, and so is what comes after the last answer.
    """
    parts, _ = parts_of(messages)
    text, completion, *more = parts or ["", ""]
    return Document(name, text, completion, tuple(more))


def as_prompt(messages: Iterable[Message]) -> list[str]:
    """Return the parts of a conversation that is to be answered: given, answer, ..., given."""
    parts, said = parts_of(messages)
    return [*parts, said + ASSISTANT]


def parts_of(messages: Iterable[Message]) -> tuple[list[str], str]:
    """Return the parts up to the last answer, and what was said since.

    What the system says at the beginning is a part of its own, with nothing learned after it: it
    stays where a long conversation loses its oldest turns.
    """
    parts: list[str] = []
    said = ""
    for role, content in messages:
        content = content.strip()
        if not content:
            continue
        if role == "assistant":
            parts += [said + ASSISTANT, f" {content}"]
            said = ""
        elif role == "system" and not parts and not said:
            parts += [f"{SYSTEM}{content}\n", ""]
        else:
            said += f"{SYSTEM if role == 'system' else USER}{content}\n"
    return parts, said


def read_messages(value: Any, where: str) -> list[Message]:
    """Return the turns of a list as OpenAI, TRL or ShareGPT write it. Raises UserError."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise UserError(f'{where} holds no list of messages like {{"role": ..., "content": ...}}')
    return [read_message(entry, f"{where}, message {n}") for n, entry in enumerate(value, start=1)]


def read_message(entry: Any, where: str) -> Message:
    """Return a turn; refuse what would be learned otherwise than it is meant."""
    keys = entry if isinstance(entry, dict) else {}
    role = keys.get("role") or keys.get("from")
    if not isinstance(role, str):
        raise UserError(f"{where} needs role and content (or from and value)")
    if role not in ROLES:
        raise UserError(f"{where} has the role {role}; there are {', '.join(ROLES)}")
    if keys.get("tool_calls") or keys.get("function_call"):
        raise UserError(f"{where} calls a tool; leave such conversations out")
    if keys.get("weight") is not None and float(keys["weight"]) != 1:
        raise UserError(f"{where} has a weight of {keys['weight']}; every answer counts alike here")
    content = keys.get("content")
    return Message(ROLES[role], text_in(keys.get("value") if content is None else content, where))


def text_in(content: Any, where: str) -> str:
    """Return a turn's text: it may stand in a list of parts of type text."""
    if content is None:
        return ""
    if isinstance(content, list):
        texts = [part.get("text") if isinstance(part, dict) else None for part in content]
        if not all(isinstance(text, str) for text in texts):
            raise UserError(f"{where} holds something else than text")
        content = "".join(texts)
    if not isinstance(content, str):
        raise UserError(f"{where} holds something else than text")
    try:
        content.encode()
    except UnicodeEncodeError:
        raise UserError(f"{where} holds half a character; mend or delete it") from None
    return content.replace("\r\n", "\n").replace("\r", "\n")


def conversations_in(
    values: Iterable[tuple[str, Any]], where: str, note: Callable[[str], None]
) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yield the fields of a Document, but for its name, for each of a column's values."""
    unanswered = 0
    for place, value in values:
        messages = read_messages(value, f"{where}: {place}")
        document = as_conversation("", messages)
        unanswered += after_the_last_answer(messages)
        yield document[1:]
    if unanswered:
        note(f"{count(unanswered, 'turn')} after the last answer left out")


def after_the_last_answer(messages: list[Message]) -> int:
    """Return how many turns come after the last answer: they lead to nothing that is learned."""
    said = [message.role for message in messages if message.content.strip()]
    return said[::-1].index("assistant") if "assistant" in said else 0
