"""The oldest transformers that is promised to read model/, in an environment of its own."""

import json
import subprocess
import sys

import pytest

from load_gpt2 import read_tokenizer
from toolkit.run.run_directory import RunDirectory

OLDEST = "transformers==4.40.0"
TEXT = "The lamp, é 🙂,\n\n  was lit"
READER = """
import json, sys
from transformers import AutoConfig, AutoTokenizer, GenerationConfig
folder, text = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
ids = tokenizer(text)["input_ids"]
print(json.dumps({
    "ids": ids, "back": tokenizer.decode(ids), "end": tokenizer.eos_token,
    "positions": AutoConfig.from_pretrained(folder).n_positions,
    "longest": GenerationConfig.from_pretrained(folder).max_length,
}))
"""


@pytest.mark.slow
def test_the_oldest_transformers_reads_the_folder_as_we_do(finished, tmp_path):
    python = tmp_path / "environment/bin/python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "environment"], check=True)
    install = [python, "-m", "pip", "install", "-q", OLDEST]
    if subprocess.run(install, capture_output=True).returncode:
        pytest.skip(f"{OLDEST} cannot be installed here")
    words = [python, "-c", READER, finished.path / "model", TEXT]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    tokenizer = read_tokenizer(RunDirectory(finished.path))
    ids = tokenizer(TEXT)["input_ids"]
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "ids": ids,
        "back": TEXT,
        "end": tokenizer.eos_token,
        "positions": 64,
        "longest": 64,
    }
