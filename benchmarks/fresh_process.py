"""Measure in a process of its own, so that neither memory nor caches of another one count."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent


def measure_alone(script: str, *words: str) -> dict[str, Any]:
    """Run a script and return the JSON in its last line; where it fails, end as it did."""
    done = subprocess.run(
        [sys.executable, script, *words], capture_output=True, text=True, cwd=PROJECT
    )
    if done.returncode:
        sys.stderr.write(done.stderr)
        sys.exit(done.returncode)
    return json.loads(done.stdout.splitlines()[-1])
