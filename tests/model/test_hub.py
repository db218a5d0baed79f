"""Models and datasets from a Hub: the good path, the cache, and a Hub that fails."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from tests.conftest import STEP_FILES, shell
from tests.model.hub_stub import COMMIT, HubStub

WIKITEXT = "hub:Salesforce/wikitext:wikitext-2-raw-v1"


@pytest.fixture(scope="module")
def hub(finished, corpus, tmp_path_factory):
    """A Hub with the tiny tuned model as `gpt2` and `owner/tiny`, and a small WikiText."""
    folder = tmp_path_factory.mktemp("hub")
    for name in ("gpt2", "owner/tiny"):
        shutil.copytree(finished.path / "model", folder / "models" / name)
    (folder / "models/owner/tiny/pytorch_model.bin").write_bytes(b"never fetched")
    dataset = folder / "datasets/Salesforce/wikitext"
    (dataset / "wikitext-2-raw-v1").mkdir(parents=True)
    texts = [path.read_text().strip().replace("\n", " ") for path in sorted(corpus.iterdir())]
    parts = {"train": texts[:24], "validation": texts[24:27], "test": texts[27:]}
    for split, articles in parts.items():
        rows = [
            row
            for n, text in enumerate(articles)
            for row in ("", f" = Article {n} = \n", "", f" {text} \n", " = = Part = = \n", "")
        ]
        path = dataset / f"wikitext-2-raw-v1/{split}-00000-of-00001.parquet"
        parquet.write_table(pa.table({"text": rows}), path)
    files = [{"split": s, "path": f"wikitext-2-raw-v1/{s}-*"} for s in parts]
    card = {"configs": [{"config_name": "wikitext-2-raw-v1", "data_files": files}]}
    (dataset / "README.md").write_text(f"---\n{json.dumps(card)}\n---\n")
    server = HubStub(folder)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def step(hub, finished, tmp_path):
    """Run one step on a copy of the finished run, with this Hub and an empty cache."""
    run = shutil.copytree(finished.path, tmp_path / "run")
    hub.broken, hub.refuse = None, False

    def call(file, *words, **environment):
        here = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "cache")}
        here |= {"HF_HUB_DISABLE_XET": "1"} | environment
        return shell(file, "--run_dir", str(run), *words, **here)

    call.run = run
    return call


@pytest.fixture
def chain(flags):
    """The runner's words for the tiny run on the WikiText of this Hub."""
    steps = [name for name in STEP_FILES if name != "create_dataset.py"]
    return ["run_pipeline.py", *(w for name in steps for w in flags[name]), "--corpus", WIKITEXT]


def refused(done, says):
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and says in last
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", [pytest.param("owner/tiny", marks=pytest.mark.slow), "auto"])
def test_a_model_comes_from_the_hub_and_then_from_the_cache(step, hub, name):
    done = step("load_gpt2.py", "--model", name)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    record = json.loads((step.run / "load_gpt2.json").read_text())
    assert record["results"]["revision"] == COMMIT
    assert not list((step.run.parent / "cache").rglob("*.bin"))
    hub.refuse = True
    again = step("load_gpt2.py", "--model", name)
    assert again.returncode == 0, again.stderr
    offline = step("load_gpt2.py", "--model", name, HF_HUB_OFFLINE="1")
    assert offline.returncode == 0 and offline.stderr == "", offline.stderr


def test_a_model_or_revision_that_the_hub_lacks_is_refused(step):
    refused(step("load_gpt2.py", "--model", "owner/none"), "no such model on the Hub")
    words = ("--model", "owner/tiny", "--model_revision", "v9")
    refused(step("load_gpt2.py", *words), "the Hub has no revision v9 of it")


def test_pickles_are_fetched_where_there_is_nothing_else_and_refusals_name_the_model(step, hub):
    folder = shutil.copytree(hub.folder / "models/owner/tiny", hub.folder / "models/owner/old")
    (folder / "model.safetensors").unlink()
    done = step("load_gpt2.py", "--model", "owner/old")  # its pytorch_model.bin is none
    refused(done, "owner/old: its pytorch_model.bin is cut short, or holds more than tensors")
    assert "--model_revision refs/pr/N" in done.stderr and "snapshots" not in done.stderr


@pytest.mark.parametrize("fault", [pytest.param("broken", marks=pytest.mark.slow), "refuse"])
def test_a_hub_that_fails_is_refused_in_one_line_and_mends(step, hub, fault):
    setattr(hub, fault, "model.safetensors" if fault == "broken" else True)
    refused(step("load_gpt2.py", "--model", "owner/tiny"), "owner/tiny: the Hub broke off")
    hub.broken, hub.refuse = None, False
    assert step("load_gpt2.py", "--model", "owner/tiny").returncode == 0


def test_auto_goes_on_without_a_hub_that_fails(step, hub):
    hub.refuse = True
    done = step("load_gpt2.py", "--model", "auto")
    assert done.returncode == 0 and "auto: gpt2 cannot be had" in done.stdout, done.stderr
    assert (step.run / "base_model").is_dir()


def test_wikitext_is_read_as_articles_with_its_own_splits(step, hub, chain):
    done = step(*chain, "--to_step", "5")
    assert done.returncode == 0, done.stderr
    results = json.loads((step.run / "create_dataset.json").read_text())["results"]["splits"]
    assert {name: split["documents"] for name, split in results.items()} == {
        "train": 24,
        "validation": 3,
        "test": 3,
    }
    splits = json.loads((step.run / "train_test_split.json").read_text())["results"]["splits"]
    assert {name: split["documents"] for name, split in splits.items()} == {
        "train": 24,
        "validation": 3,
        "test": 3,
    }
    hub.refuse = True
    offline = step("create_dataset.py", "--corpus", WIKITEXT, HF_HUB_OFFLINE="1")
    assert offline.returncode == 0, offline.stderr


def test_rows_can_be_documents_and_columns_are_checked(step):
    done = step("create_dataset.py", "--corpus", WIKITEXT, "--rows", "document")
    assert done.returncode == 0 and "documents dropped: empty" in done.stdout
    done = step("create_dataset.py", "--corpus", WIKITEXT, "--text_column", "body")
    refused(done, "--text_column body: no such column; there are: text")


def test_a_dataset_that_the_hub_lacks_is_refused(step):
    refused(step("create_dataset.py", "--corpus", "hub:no/such"), "the Hub has no such dataset")
    done = step("create_dataset.py", "--corpus", "hub:Salesforce/wikitext:wikitext-9")
    refused(done, "wikitext-9")
    done = step("create_dataset.py", "--corpus", "hub:no/such", HF_HUB_OFFLINE="1")
    refused(done, "not in the cache, and the Hub")


def test_a_dataset_of_several_configurations_lists_them(step, hub):
    folder = hub.folder / "datasets/owner/two"
    folder.mkdir(parents=True)
    for name in ("first", "second"):
        parquet.write_table(pa.table({"text": ["a"]}), folder / f"{name}.parquet")
    configs = [{"config_name": n, "data_files": f"{n}.parquet"} for n in ("first", "second")]
    (folder / "README.md").write_text(f"---\n{json.dumps({'configs': configs})}\n---\n")
    done = step("create_dataset.py", "--corpus", "hub:owner/two")
    refused(done, "has several configurations; give one, hub:owner/two:NAME, of: first, second")


@pytest.mark.slow
def test_a_streamed_dataset_holds_out_what_a_downloaded_one_does(step, hub, chain):
    left = {}
    for name, more in (
        ("whole", ["--to_step", "5"]),
        ("stream", ["--to_step", "7", "--streaming"]),
    ):
        done = step(*chain, *more)
        assert done.returncode == 0 and done.stderr == "", done.stderr
        left[name] = json.loads((step.run / "train_test_split.json").read_text())["results"]
    assert json.loads((step.run / "create_dataset.json").read_text())["results"]["revision"]
    for name in ("validation", "test"):
        assert left["whole"]["splits"][name] == left["stream"]["splits"][name]
    stream = json.loads((step.run / "train_model.json").read_text())["results"]["stream"]
    assert stream["documents_read"] >= 24 and stream["documents_read"] % 24 == 0
    hub.refuse = True
    evaluated = step("evaluate_model.py", HF_HUB_OFFLINE="1")
    assert evaluated.returncode == 0, evaluated.stderr


@pytest.mark.parametrize("refuse", [True, False])
def test_a_hub_that_fails_a_stream_is_one_line(step, hub, refuse):
    hub.refuse = refuse
    name = WIKITEXT if refuse else "hub:owner/none"
    refused(step("create_dataset.py", "--corpus", name, "--streaming"), f"--corpus {name}: ")
