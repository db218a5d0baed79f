"""Publishing: the folder and its card in one commit, only when asked, and a Hub that refuses."""

import hashlib
import json
import re
import socket
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, constants
from markdown_it import MarkdownIt
from markdown_it.token import Token

import generate
from tests.conftest import chain_main, shell
from tests.report.hub_writing_stub import TOKEN, WritingHubStub
from toolkit.model import hub as hub_reader
from toolkit.report.card_additions import with_additions
from toolkit.report.model_card import UNNAMED, last_part, model_card
from toolkit.report.publishing import publish
from toolkit.run.records import write_record
from toolkit.run.run_directory import RunDirectory
from toolkit.scoring.metrics import METRICS

# huggingface_hub's own way of sending large files, which its HTTP library frowns on
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub(tmp_path):
    server = WritingHubStub(tmp_path / "hub")
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def here(hub, monkeypatch):
    """Let this process reach the stand-in, and nothing else."""
    for name, value in (("ENDPOINT", hub.url), ("HF_HUB_OFFLINE", False)):
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub_reader.hub_answers.cache_clear()
    yield hub
    hub_reader.hub_answers.cache_clear()


def environment(hub, tmp_path, **more):
    mine = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "cache")}
    return mine | {"HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN} | more


def sent(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def metrics_of(run: Path) -> dict:
    return json.loads((run / "evaluate_model.json").read_text())["results"]


def test_a_published_model_is_the_folder_and_its_card_and_can_be_fetched(finished, hub, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in finished.path.rglob("*")}
    words = ["generate.py", "--run_dir", str(finished.path), "--push_to_hub", "tale"]
    done = shell(*words, **environment(hub, tmp_path))
    assert done.returncode == 0 and done.stderr == "", done.stderr
    told = f"published at {hub.url}/keeper/tale (private; its settings page can make it public)\n"
    assert done.stdout == told
    assert {path: path.stat().st_mtime_ns for path in finished.path.rglob("*")} == before
    there = sent(hub.folder / "models/keeper/tale")
    card = there.pop("README.md").decode()
    assert there == sent(finished.path / "model") and hub.private == {"keeper/tale": True}
    assert len(hub.commits) == 1
    assert card == (finished.path / "model_card.md").read_text().replace(
        UNNAMED, "keeper/tale"
    ).replace("name: NAME", "name: tale")
    for file, more in (("import_modules.py", []), ("load_gpt2.py", ["--model", "keeper/tale"])):
        step = shell(
            file, "--run_dir", str(tmp_path / "other"), *more, **environment(hub, tmp_path)
        )
        assert step.returncode == 0, step.stderr


def test_the_card_has_the_figures_and_metadata_that_the_hub_can_read(finished):
    metrics = metrics_of(finished.path)
    card = ModelCard((finished.path / "model_card.md").read_text())
    known = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert known == {m.name.removeprefix("token_"): metrics["tuned"][m.name] for m in METRICS}
    assert card.data.library_name == "transformers" and card.data.pipeline_tag == "text-generation"
    assert card.data.license is None and card.data.language is None and card.data.base_model is None
    weights = (finished.path / "model/model.safetensors").read_bytes()
    assert f"sha256 of model.safetensors: `{hashlib.sha256(weights).hexdigest()}`" in card.text
    for metric in METRICS:
        for column in ("base", "tuned", "difference"):
            assert metric.write(metrics[column][metric.name]) in card.text
            span = metrics[column]["intervals"][metric.name]
            assert f"({' to '.join(map(metric.write, span))})" in card.text
        assert metric.definition in card.text
    split = json.loads((finished.path / "train_test_split.json").read_text())["results"]
    for part in split["splits"].values():
        assert f"{part['tokens_in_blocks']:,}" in card.text
    assert f"{split['test_windows_in_train']:.2%}" in card.text
    assert "--block_size 32" in card.text and "a context of 64 tokens" in card.text
    assert "--max-model-len 64" in card.text and "began with random weights" in card.text
    for sample in metrics["samples"]:
        assert sample["prompt"][:30] in card.text


def test_a_card_names_no_folder_of_this_machine(finished, corpus):
    text = (finished.path / "model_card.md").read_text()
    assert str(corpus) not in text and str(finished.path) not in text and corpus.name in text
    assert last_part("../up/text.txt") == "text.txt" and last_part("~/text.txt") == "text.txt"
    assert last_part("hub:owner/name") == "hub:owner/name" and last_part("/") == "/"


def test_no_text_can_break_out_of_the_card(run_copy):
    """A model's name, a corpus and samples made of YAML, Markdown and HTML stay what they are."""
    harmless = structure((run_copy / "model_card.md").read_text())
    evil = "x\n---\nlicense: mit\n# Ha <b>b</b> `a` | [b](c) ~~~\n~~~~\n```\n![d](e) <!-- &lt; *i*"
    edit_record(run_copy, "create_dataset", "options", corpus=[f"/home/{evil}"])
    edit_record(run_copy, "load_gpt2", "results", model=evil, from_scratch=False)
    edit_record(run_copy, "load_gpt2", "measured", flags=["--model", evil])
    metrics = metrics_of(run_copy)
    metrics["samples"][0] = {"prompt": evil + "\0\x1b[31m", "base": [evil], "tuned": [evil]}
    text = model_card(RunDirectory(run_copy), metrics)
    assert structure(text) == harmless and not set(text) & {"\0", "\x1b"}
    assert ModelCard(text).data.license is None and "/home" not in text
    title = MarkdownIt().parse(ModelCard(text).text)[1].children
    assert "".join(part.content for part in title).startswith(" ".join(evil.split()))


def structure(text: str) -> list[str]:
    """What a Markdown parser makes of a card, the words aside. HTML, links and images are kept."""
    tokens = MarkdownIt("commonmark").enable("table").parse(ModelCard(text).text)
    inline = [part for token in tokens for part in token.children or ()]
    kinds = [kind_of(token) for token in tokens] + [part.type for part in inline]
    return [kind for kind in kinds if kind not in ("text", "text_special", "softbreak")]


def kind_of(token: Token) -> str:
    """Return a token's type; a block of `<pre>` that holds no other tag is as good as a fence."""
    shown = re.fullmatch(r"<pre>\n[^<>]*\n</pre>\n?", token.content)
    return "fence" if token.type == "html_block" and shown else token.type


def edit_record(run: Path, step: str, part: str, **changes) -> None:
    path = run / f"{step}.json"
    record = json.loads(path.read_text())
    record[part].update(changes)
    write_record(path, record)


def test_what_another_model_left_there_is_removed_in_the_same_commit(finished, here, capsys):
    obsolete = ["adapter_config.json", "chat_template.jinja", "model.safetensors.index.json"]
    obsolete += ["pytorch_model.bin", "vocab.json"]
    publish(RunDirectory(finished.path), "tale")
    repository = here.folder / "models/keeper/tale"
    for name in (*obsolete, "notes.txt"):
        (repository / name).write_text("{}")
    (repository / "config.json").write_text("{}")
    here.private["keeper/tale"] = False
    publish(RunDirectory(finished.path), "keeper/tale")
    assert here.commits[1] == {"added": ["config.json"], "deleted": obsolete}
    wanted = set(sent(finished.path / "model")) | {"README.md", "notes.txt"}
    assert set(sent(repository)) == wanted
    assert capsys.readouterr().out.splitlines()[1].endswith("/keeper/tale (public)")


ADDED = """## Intended use

```
## no heading
```
For the keeper.
"""


def test_publishing_again_keeps_what_a_person_added_to_the_card(finished, here):
    publish(RunDirectory(finished.path), "tale")
    path = here.folder / "models/keeper/tale/README.md"
    ours = path.read_text(encoding="utf-8")
    said = ours.replace("---\n", "---\nlicense: mit\nlanguage: en\n", 1)
    said = said.replace("## Limits\n", f"{ADDED}\n## Limits\nAn old limit.\n")
    path.write_text(said.replace("tags:\n", "tags:\n- sea\n"), encoding="utf-8")
    publish(RunDirectory(finished.path), "tale")
    whole = path.read_text(encoding="utf-8")
    card = ModelCard(whole)
    assert card.data.license == "mit" and card.data.language == "en" and "sea" in card.data.tags
    assert card.text.count(ADDED) == 1 and "An old limit." not in card.text
    assert card.text.replace(ADDED, "").strip() == ModelCard(ours).text.strip()
    publish(RunDirectory(finished.path), "tale")  # and again
    assert path.read_text(encoding="utf-8") == whole


def test_a_card_that_is_none_of_ours_stays_below_ours():
    assert with_additions("---\ntags: [gpt2]\n---\n# New\n", "# Mine\n") == (
        "---\ntags:\n- gpt2\n---\n\n# New\n\n# Mine\n"
    )
    assert with_additions("# New\n", "") == "# New\n"


def test_the_runner_publishes_at_its_end(finished, here, all_flags, capsys):
    chain_main("--run_dir", finished.path, *all_flags, "--push_to_hub", "tale")
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"published at {here.url}/keeper/")
    assert len(here.commits) == 1


# A Hub, a network or a folder that refuses


FAULTS = [
    ("/whoami", 401, "the Hub does not accept the token; log in anew: hf auth login"),
    ("/whoami", 503, "the Hub broke off (Server error '503"),
    ("/repos/create", 403, "the token may not write there"),
    ("/repos/create", 500, "the Hub broke off (Server error '500"),
    ("/validate-yaml", 500, "the Hub broke off"),
    ("/preupload", 403, "the token may not write there"),
    ("/upload/", 400, "the Hub broke off"),
    ("/commit", 401, "the Hub does not accept the token"),
    ("/commit", 409, "something else is writing there; run the same command again"),
    ("/commit", 412, "something else has just written there; run the same command again"),
    ("/commit", 500, "the Hub broke off (Server error '500"),
]


@pytest.mark.parametrize("part, status, says", FAULTS)
def test_a_hub_that_refuses_is_one_line_and_nothing_is_sent_by_half(
    finished, here, refusal, part, status, says
):
    here.faults[part] = status
    before = {path: path.stat().st_mtime_ns for path in finished.path.rglob("*")}
    words = ["--run_dir", finished.path, "--push_to_hub", "tale"]
    error = refusal(generate.main, *words)
    assert error.startswith("error: --push_to_hub ") and says in error and TOKEN not in error
    assert here.commits == [] and all(not sent(path) for path in here.folder.glob("models/*/*"))
    assert {path: path.stat().st_mtime_ns for path in finished.path.rglob("*")} == before


def test_another_owners_name_is_refused(finished, here, refusal):
    words = ["--run_dir", finished.path, "--push_to_hub", "someone/tale"]
    assert "someone/tale: the token may not write there" in refusal(generate.main, *words)


def test_no_token_no_network_and_no_hub_are_refused(finished, here, refusal, monkeypatch, tmp_path):
    words = ["--run_dir", finished.path, "--push_to_hub", "tale"]
    with monkeypatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert "HF_HUB_OFFLINE forbids the network" in refusal(generate.main, *words)
    with monkeypatch.context() as patch:
        patch.delenv("HF_TOKEN")
        patch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        assert "no token; run: hf auth login, or set HF_TOKEN" in refusal(generate.main, *words)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "(http://127.0.0.1:9) does not answer" in refusal(generate.main, *words)
    assert here.requests == []


def test_a_run_without_figures_and_a_changed_model_are_not_published(run_copy, here, refusal):
    words = ["--run_dir", run_copy, "--push_to_hub", "tale"]
    weights = run_copy / "model/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    error = refusal(generate.main, *words)
    assert "train_model is stale (model was changed or removed since); run: python3" in error
    content[-1] ^= 1
    weights.write_bytes(content)
    (run_copy / "evaluate_model.json").unlink()
    assert "evaluate_model has not run to its end" in refusal(generate.main, *words)
    assert here.private == {}


def test_nothing_is_sent_without_the_flag(run_copy, all_flags, monkeypatch):
    """With a token and a Hub at hand, a run that publishes nothing opens no connection at all."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, lambda *_: pytest.fail("a connection"))
    chain_main("--run_dir", run_copy, *all_flags, "--from_step", "8", "--force")
    generate.main(["--run_dir", str(run_copy), "--max_new_tokens", "8"])
