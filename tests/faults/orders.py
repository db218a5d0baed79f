"""What the workshop is told to do, and how it ended."""

from dataclasses import dataclass, field


@dataclass
class Order:
    """What a child is to do, and what is done to it."""

    main: str  # a module of the project with a `main`
    words: list[str]
    folder: str = "."  # where it works
    may_write: list[str] = field(default_factory=list)  # below these folders
    limits: dict[str, int] = field(default_factory=dict)  # NOFILE, FSIZE; AS: more than is mapped
    within: str = ""  # changes below this folder are counted, for `at`
    at: int | None = None  # the number of the change before which ...
    moment: str | None = None  # ... or the first whose words match this ...
    then: str = "kill"  # ... this is done to it: kill, fill the disk, or remove the folder
    kill_after: float | None = None  # seconds
    patience: float = 20.0  # seconds until it counts as hanging
    stdin: str = ""


@dataclass
class Ending:
    """How a child ended."""

    code: int  # below 0: the signal
    out: str
    err: str
    seconds: float
    hung: bool = False
    changes: list[str] = field(default_factory=list)  # what it changed below `within`
    outside: list[str] = field(default_factory=list)  # what it changed where it must not
    started: list[str] = field(default_factory=list)  # other programs, and pickled calls
