"""A chat as messengers export it, as conversations: one speaker's messages are the answers.

Ann: Is the kettle on?                    User: Is the kettle on?
Bea: Just now.                            Assistant: Just now.
Bea: Bring biscuits.     --speaker Bea    Bring biscuits.<|endoftext|>
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from toolkit.corpus.columns import is_name, listed
from toolkit.corpus.conversations import Message, after_the_last_answer, as_conversation
from toolkit.corpus.cutting import Note
from toolkit.corpus.document import Document
from toolkit.run.command import UserError
from toolkit.run.console import count

MOST_MESSAGES = 16  # of a chat without a blank line, that are one conversation
# 31.12.23, 21:41 - Ann: ...    [12/31/23, 9:41:07 PM] Ann: ...
STAMP = re.compile(
    r"\u200e?\[?\d{1,4}[./-]\d{1,2}[./-]\d{1,4},? \d{1,2}:\d{2}(:\d{2})?"
    r"([ \u202f]?[AaPp]\.?[Mm]\.?)?\]?( -)? "
)
SAID = re.compile(r"([^:\n]+):(?: (.*)|$)")

Said = tuple[str, str]  # who, and what


def chats_in(
    documents: Iterable[Document], speaker: str, where: str, note: Note
) -> Iterator[Document]:
    """Yield the conversations in texts of `Name: text` lines.

    A blank line ends one, and so do MOST_MESSAGES messages, where the speaker has answered. Raises
    UserError where the speaker says nothing at all.
    """
    names: Counter[str] = Counter()
    found = unanswered = 0
    for document in documents:
        for said in cut_chat(document.text, speaker):
            found += 1
            names.update(name for name, _ in said)
            messages = list(as_messages(said, speaker))
            unanswered += after_the_last_answer(messages)
            yield as_conversation(f"{document.name}:{found}", messages)
    if speaker not in names:
        there = [name for name, _ in names.most_common()]
        seen = f"there are: {listed(there)}" if there else "none begins with a name and a colon"
        raise UserError(f"{where}: --speaker {speaker}: no line begins with '{speaker}:'; {seen}")
    note(f"{count(found, 'conversation')}, {names[speaker]:,} messages of {speaker}")
    if unanswered:
        note(f"{count(unanswered, 'turn')} after the last answer left out")


def cut_chat(text: str, speaker: str) -> Iterator[list[Said]]:
    """Yield conversations: who said what, in turn. A line without a name goes on with the last."""
    said: list[Said] = []
    blank = False
    for line in text.split("\n"):
        begins = SAID.fullmatch(STAMP.sub("", line, count=1).strip())
        if begins and is_name(begins[1]):
            answered = said and said[-1][0] == speaker != begins[1].strip()
            if said and (blank or (answered and len(said) >= MOST_MESSAGES)):
                yield said
                said = []
            said.append((begins[1].strip(), begins[2] or ""))
        elif said and line.strip():
            name, before = said[-1]
            said[-1] = (name, f"{before}\n\n{line}" if blank else f"{before}\n{line}")
        blank = not line.strip()
    if said:
        yield said


def as_messages(said: list[Said], speaker: str) -> Iterator[Message]:
    """Yield turns; what one says in several messages is one. Of several others the names stay."""
    others = {name for name, _ in said if name != speaker}
    role, texts = "", []
    for name, text in said:
        if (mine := "assistant" if name == speaker else "user") != role and texts:
            yield Message(role, "\n".join(texts))
            texts = []
        role = mine
        texts.append(f"{name}: {text}" if len(others) > 1 and name != speaker else text)
    if texts:
        yield Message(role, "\n".join(texts))
