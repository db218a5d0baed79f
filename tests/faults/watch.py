"""An audit hook: what a child of the workshop changes and starts, and a fault at a moment."""

import os
import re
import resource
import shutil
import signal

from tests.faults.orders import Order

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate"}
CHANGES |= {"os.chmod", "os.utime"}
STARTS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn"}
UNPICKLED = {"os", "posix", "nt", "subprocess", "sys", "shutil", "builtins.eval", "builtins.exec"}


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
