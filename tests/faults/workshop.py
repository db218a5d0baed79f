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
import resource
import select
import signal
import sys
import time
import traceback
from dataclasses import asdict
from pathlib import Path

from tests.faults.orders import Ending, Order
from tests.faults.watch import Watch

ENOUGH = 1 << 20  # bytes that are kept of what a child prints


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
        value += mapped_bytes() if name == "AS" else 0
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


def mapped_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


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
