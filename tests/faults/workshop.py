"""A process that has imported everything and forks a child for each command: seconds are saved.

`python3 -m tests.faults.workshop` reads an order a line (see `Order`) and answers with a line.
A child runs a `main` as a process of its own would, with what the order does to it on the way.
"""

import atexit
import contextlib
import importlib
import json
import os
import pkgutil
import re
import resource
import select
import shutil
import signal
import sys
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate"}
CHANGES |= {"os.chmod", "os.utime"}
STARTS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn"}
UNPICKLED = {"os", "posix", "nt", "subprocess", "sys", "shutil", "builtins.eval", "builtins.exec"}
ENOUGH = 1 << 20  # bytes that are kept of what a child prints


@dataclass
class Order:
    """What a child is to do, and what is done to it."""

    main: str  # a module of the project with a `main`
    words: list[str]
    folder: str = "."  # where it works
    may_write: list[str] = field(default_factory=list)  # below these folders
    limits: dict[str, int] = field(default_factory=dict)  # {"NOFILE": 20}
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


class Watch:
    """An audit hook: notes what is changed and started, and strikes at a moment."""

    def __init__(self, order: Order):
        self.order, self.struck, self.busy = order, False, False
        self.changes: list[str] = []
        self.outside: list[str] = []
        self.started: list[str] = []
        self.within = os.path.realpath(order.within) if order.within else None
        self.may = [os.path.realpath(path) for path in order.may_write]

    def __call__(self, event: str, args: tuple) -> None:
        if self.busy:
            return
        self.busy = True
        try:
            if event in STARTS:
                self.started.append(f"{event} {str(args)[:100]}")
            elif event == "pickle.find_class" and {args[0], ".".join(args)} & UNPICKLED:
                self.started.append(f"{event} {args}")
            elif event in CHANGES or (event == "open" and is_writing(*args)):
                for path in paths_of(event, args):
                    self.note(event, path)
        finally:
            self.busy = False

    def note(self, event: str, path: str) -> None:
        if path.startswith(("/dev/", "/proc/")):
            return
        if not any(is_below(path, home) for home in self.may):
            self.outside.append(f"{event} {path}")
        if self.within is None or not is_below(path, self.within):
            return
        self.changes.append(f"{event} {os.path.relpath(path, self.within)}")
        here = len(self.changes) - 1 == self.order.at
        if self.order.moment and re.search(self.order.moment, self.changes[-1]):
            here = True
        if here and not self.struck:
            self.struck = True
            self.strike()

    def strike(self) -> None:
        if self.order.then == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.order.then == "fill the disk":  # no file may grow from now on
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        elif self.order.then == "remove the folder":
            shutil.rmtree(self.within)


def is_writing(path: object, mode: object, flags: int) -> bool:
    return isinstance(path, str | bytes | os.PathLike) and bool((flags or 0) & WRITING)


def paths_of(event: str, args: tuple) -> list[str]:
    """Return the whole paths that an event of the file system names."""
    count = 2 if event in ("os.rename", "os.link", "os.symlink") else 1
    folders = [value for value in args[count:] if isinstance(value, int)]
    found = []
    for number, name in enumerate(args[:count]):
        if not isinstance(name, str | bytes | os.PathLike):  # an open file
            continue
        name = os.fsdecode(name)
        if event in ("os.mkdir", "os.chmod"):  # their first number is a mode
            at = folders[1] if len(folders) > 1 else -1
        else:
            at = folders[number] if number < len(folders) and event != "open" else -1
        home = os.readlink(f"/proc/self/fd/{at}") if at >= 0 else os.getcwd()
        whole = os.path.join(home, name)
        found.append(os.path.join(os.path.realpath(os.path.dirname(whole)), os.path.basename(name)))
    return found


def is_below(path: str, home: str) -> bool:
    return path == home or path.startswith(home.rstrip("/") + "/")


def import_everything() -> None:
    import toolkit

    importlib.import_module("run_pipeline")
    for module in pkgutil.walk_packages(toolkit.__path__, "toolkit."):
        with contextlib.suppress(ImportError):
            importlib.import_module(module.name)
    for name in ("matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg"):
        importlib.import_module(name)
    importlib.import_module("transformers.models.gpt2.modeling_gpt2")
    importlib.import_module("transformers").Trainer  # noqa: B018 - transformers loads it when asked


def work(order: Order, pipes: dict[str, int]) -> None:
    """Do what is ordered, in the child, and never return."""
    os.setsid()
    for number, name in ((0, "in"), (1, "out"), (2, "err")):
        os.dup2(pipes[name], number)
    sys.stdin = open(0, encoding="utf-8", closefd=False)
    sys.stdout = open(1, "w", encoding="utf-8", errors="replace", closefd=False)
    sys.stderr = open(2, "w", encoding="utf-8", errors="replace", closefd=False)
    os.chdir(order.folder)
    watch = Watch(order)
    for name, value in order.limits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))
    sys.addaudithook(watch)
    code = 0
    try:
        sys.argv = [f"{order.main}.py", *order.words]
        importlib.import_module(order.main).main(order.words)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    watch.busy = True  # what follows is ours
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
        sys.stderr.flush()
    told = {name: getattr(watch, name)[-2000:] for name in ("changes", "outside", "started")}
    with contextlib.suppress(BaseException), open(pipes["told"], "w") as file:
        json.dump(told, file)
    os._exit(code)


def carry_out(order: Order) -> Ending:
    """Fork a child for an order, and wait for its end."""
    ours, theirs = {}, {}
    for name in ("out", "err", "told"):
        ours[name], theirs[name] = os.pipe()
    theirs["in"], feed = os.pipe()
    os.write(feed, order.stdin.encode()[:60_000])
    os.close(feed)
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        for number in ours.values():
            os.close(number)
        try:
            work(order, theirs)
        finally:
            os._exit(99)
    for number in theirs.values():
        os.close(number)
    texts, hung = listen(child, ours, order, started)
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)  # what it started and left behind
    told = json.loads(texts.pop("told") or "{}")
    seconds = time.monotonic() - started
    return Ending(os.waitstatus_to_exitcode(status), **texts, seconds=seconds, hung=hung, **told)


def listen(
    child: int, pipes: dict[str, int], order: Order, started: float
) -> tuple[dict[str, str], bool]:
    """Return what a child says until it ends; kill it when the order says so, or patience ends."""
    names = {number: name for name, number in pipes.items()}
    said = dict.fromkeys(pipes, b"")
    hung, killed = False, False
    while names:
        now = time.monotonic() - started
        if order.kill_after is not None and now >= order.kill_after and not killed:
            os.kill(child, signal.SIGKILL)
            killed = True
        elif now >= order.patience and not killed:
            os.kill(child, signal.SIGKILL)
            hung = killed = True
        elif killed and now > order.patience + 5:
            break  # a grandchild holds a pipe open
        for number in select.select(list(names), [], [], 0.02)[0]:
            if block := os.read(number, 1 << 16):
                said[names[number]] += block[: ENOUGH - len(said[names[number]])]
            else:
                os.close(number)
                del names[number]
    return {name: text.decode("utf-8", "replace") for name, text in said.items()}, hung


def main() -> None:
    import_everything()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        ending = carry_out(Order(**json.loads(line)))
        print(json.dumps(asdict(ending)), file=answers, flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
    main()
