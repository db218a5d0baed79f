"""What nobody thought of: good files, changed at random, for so many minutes."""

import gzip
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.damage import UNREAD, behind_checkpoints, names_in
from tests.faults.harm import copy_of
from tests.faults.harness import Bench, Tally
from toolkit.run.records import write_record
from toolkit.run.steps import STEPS

ODD: list[Any] = [None, True, 0, -1, 1.5, 10**20, "", "x", [], {}, [1], ["x"], {"a": 1}, "\x1b[31m"]
ROWS = b"".join(b'{"text": "Row %d of the log.", "n": %d}\n' % (n, n) for n in range(40))
CSV = b"text,n\n" + b"".join(b'"Row %d, of the log.",%d\n' % (n, n) for n in range(40))
TEXT = b"A line of the log.\n\nAnother one, \xc3\xa9.\n" * 40
JSON = json.dumps([{"text": "A row."}, {"text": "Another one."}]).encode()
CORPORA = {"x.jsonl": ROWS, "x.csv": CSV, "x.txt": TEXT, "x.json": JSON}
CORPORA |= {f"{name}.gz": gzip.compress(content) for name, content in list(CORPORA.items())}
STEMS = ["", "\udcff", "\x1b[31m", "a\nb", "<b>", "e" * 200]  # names that files may have
YAML = (
    b"seed: 5\ncorpus: [a, b]\nlearning_rate: 1e-3\nfrom_scratch: true\nmodel: auto\nto_step: 2\n"
)
FEW = 3


def fuzzing(bench: Bench) -> Tally:
    """Change something at random, again and again. A file of ours that is changed is made anew."""
    tally, count = bench.tally("fuzzing"), 0
    until = time.monotonic() + 60 * (bench.minutes or 0)
    while time.monotonic() < until if bench.minutes is not None else count < FEW:
        KINDS[count % len(KINDS)](bench, tally)
        count += 1
    return tally


def a_corpus(bench: Bench, tally: Tally) -> None:
    name, folder = bench.draw.choice(list(CORPORA)), bench.home / "temporary/corpus"
    content = mutated(CORPORA[name], bench.draw)
    bench.clear(folder)
    folder.mkdir()
    (folder / f"{bench.draw.choice(STEMS)}{name}").write_bytes(content)
    words = ["--run_dir", bench.copy(), "--corpus", folder]
    ending = bench.workshop("create_dataset", *words, may_write=bench.home / "run")
    tally.note(f"{name} {content[:200]!r}", ending)


def a_config_file(bench: Bench, tally: Tally) -> None:
    path, content = bench.home / "temporary/x.yaml", mutated(YAML, bench.draw)
    path.write_bytes(content)
    words = ["--config", path, "--run_dir", bench.copy(), "--to_step", 2]
    ending = bench.workshop("run_pipeline", *words, may_write=bench.home / "run")
    tally.note(f"--config {content!r}", ending)


def a_model_folder(bench: Bench, tally: Tally) -> None:
    folder = copy_of(bench.run / "base_model", bench.home / "given")
    name = bench.draw.choice(names_in(folder))
    how = change_a_value if name.endswith(".json") and bench.draw.random() < 0.6 else change_bytes
    said = how(folder / name, bench.draw)
    words = ["--run_dir", bench.copy(), "--model", folder]
    ending = bench.workshop("load_gpt2", *words, may_write=bench.home / "run")
    tally.note(f"{name} {said}", ending)


def a_file_of_the_run(bench: Bench, tally: Tally) -> None:
    run = bench.copy()
    name = bench.draw.choice([n for n in names_in(run) if not n.startswith(UNREAD)])
    said = change_bytes(run / name, bench.draw)
    tally.note(f"{name} {said}", bench.chain(run), lambda: bench.unequal(run))


def a_file_of_a_checkpoint(bench: Bench, tally: Tally) -> None:
    run = behind_checkpoints(bench)
    name = bench.draw.choice(names_in(run / UNREAD))
    said = change_bytes(run / UNREAD / name, bench.draw)
    tally.note(f"{name} {said}", bench.chain(run), lambda: bench.unequal(run))


def a_sealed_record(bench: Bench, tally: Tally) -> None:
    """A record of another version, which lacks something: good enough, or refused."""
    run, step = bench.copy(), bench.draw.choice(STEPS[1:])
    path = run / f"{step}.json"
    record = json.loads(path.read_text())
    named = [place for place in places_in(record) if isinstance(place[0], dict)]
    part, key = bench.draw.choice(named)
    del part[key]
    if "flags" in record.get("measured", {}):
        write_record(path, record)
    first = bench.draw.randint(2, 10)
    ending = bench.chain(run, "--from_step", first)
    tally.note(f"{step}.json without {key}, from step {first}", ending, bench.touched)


KINDS: list[Callable[[Bench, Tally], None]] = [
    a_corpus,
    a_config_file,
    a_model_folder,
    a_sealed_record,
    a_file_of_the_run,
    a_file_of_a_checkpoint,
]


def change_bytes(path: Path, draw: random.Random) -> str:
    path.write_bytes(mutated(path.read_bytes(), draw))
    return "bytes"


def change_a_value(path: Path, draw: random.Random) -> str:
    """Put something odd in the place of any value of a JSON file, and return what and where."""
    tree = json.loads(path.read_text())
    places = list(places_in(tree))
    part, key = draw.choice([place for place in places if place[1] != "measured"])
    odd = draw.choice(ODD)
    said = f"{key}: {str(part[key])[:40]!r} -> {odd!r}"
    part[key] = odd
    path.write_text(json.dumps(tree))
    return said


def places_in(tree: Any):
    """Yield every (object or list, key) below a tree; of long ones the first few."""
    keys = (
        list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else []
    )
    for key in keys[:40]:
        yield tree, key
        yield from places_in(tree[key])


def mutated(content: bytes, draw: random.Random) -> bytes:
    """Return content with a few bytes flipped, inserted, removed, repeated or cut off."""
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        at = draw.randrange(len(changed) + 1)
        size = draw.choice((1, 2, 8, 100, 5000))
        match draw.randrange(5):
            case 0:
                changed[at : at + 1] = bytes(
                    byte ^ 1 << draw.randrange(8) for byte in changed[at : at + 1]
                )
            case 1:
                changed[at:at] = draw.randbytes(size)
            case 2:
                del changed[at : at + size]
            case 3:
                changed[at:at] = changed[at : at + size]
            case 4:
                del changed[at:]
    return bytes(changed)
