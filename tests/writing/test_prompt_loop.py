"""The prompt in the terminal: what is typed, what is answered, what ends it."""

import os
import pty
import select
import sys
import time

import pytest

import generate
from load_gpt2 import read_gpt2
from tests.conftest import PROJECT, shell
from toolkit.corpus.conversations import Message
from toolkit.run.run_directory import RunDirectory
from toolkit.writing import prompt_loop
from toolkit.writing.chat import STOP, chat_ids
from toolkit.writing.generator import Generator
from toolkit.writing.prompt_loop import PromptLoop
from toolkit.writing.sampling import Sampling
from train_model import read_tuned

SHORT = Sampling(max_new_tokens=5, temperature=0.8, top_p=0.95, top_k=50, num_samples=1)


@pytest.fixture(scope="module")
def models(finished):
    run = RunDirectory(finished.path, seed=7, device="cpu", precision="fp32")
    base, tokenizer = read_gpt2(run)
    return {"base": Generator(base, tokenizer), "tuned": Generator(read_tuned(run), tokenizer)}


@pytest.fixture
def typed(models, monkeypatch, capsys):
    """Type lines (an exception instead of one is raised) and return what is printed for each."""

    def type_all(*lines, chat=False, sampling=SHORT):
        loop, given = PromptLoop(models, sampling, 7, chat), iter(lines)

        def read(mark):
            sys.stdout.write("\0" + mark.strip("\n"))
            line = next(given, EOFError())
            if isinstance(line, BaseException):
                raise line
            return line

        monkeypatch.setattr(prompt_loop, "reader", lambda: read)
        loop.run()
        begun, *answers = capsys.readouterr().out.split("\0")
        return [text.partition("> ")[2] for text in answers[:-1]], loop, begun

    return type_all


def test_a_text_says_how_it_ended(typed):
    (answer,), _, begun = typed("The lamp")
    assert answer.endswith("\n[cut at 5 tokens]\n")
    assert begun.startswith("type the beginning of a text, then Enter; /help")


def test_empty_lines_do_nothing(typed):
    answers, loop, _ = typed("", "   ")
    assert answers == ["", ""] and loop.seed == 7


@pytest.mark.parametrize("word", ["/quit", "/exit", EOFError()])
def test_the_loop_ends_by_a_word_or_ctrl_d(typed, word):
    answers, _, _ = typed(word, "The lamp")
    assert answers == []


def test_ctrl_c_drops_the_line_and_not_the_session(typed):
    answers, _, _ = typed(KeyboardInterrupt(), "The lamp")
    assert answers[0] == "\n" and answers[1].endswith("[cut at 5 tokens]\n")


def test_ctrl_c_stops_an_answer_and_not_the_session(typed, monkeypatch):
    monkeypatch.setattr(prompt_loop, "Printer", lambda chat: interrupting)
    answers, loop, _ = typed("The lamp", "/set")
    assert answers[0] == "\n[stopped]\n" and "temperature" in answers[1]
    assert not any(generator.busy for generator in loop.models.values())


def interrupting(row):
    raise KeyboardInterrupt


def test_a_prompt_may_begin_with_a_slash(typed, models, monkeypatch):
    seen = []
    monkeypatch.setattr(Generator, "finish_all", lambda self, rows: seen.extend(rows))
    typed("//etc/hosts holds")
    assert models["tuned"].tokenizer.decode(seen[0].prompt) == "/etc/hosts holds"


def test_both_models_answer_from_one_seed_and_the_seed_can_be_set(typed):
    answers, _, _ = typed("The lamp", "/seed 7", "The lamp", "/both", "/seed 7", "The lamp")
    assert answers[2] == answers[0]
    base, tuned = answers[5].split("\ntuned:\n")
    assert base.startswith("\nbase:\n") and tuned == answers[0]


REFUSED = {
    "/set top_p 2": "/set top_p must lie above 0 and up to 1, got 2.0",
    "/set top_k many": "/set top_k must be a whole number, got many",
    "/set max_new_tokens 64": "/set max_new_tokens 64: the model has 64 positions; ask for fewer",
    "/set beams 2": "/set beams: no such setting; there are max_new_tokens, temperature",
    "/seed -1": "/seed must lie between 0 and 4294967295, got -1",
    "/sing": "/sing: no such command; /help lists them",
    "/reset": "/reset: no such command",  # but in a conversation
}


@pytest.mark.parametrize("command", REFUSED)
def test_what_the_next_prompt_would_refuse_is_refused_at_once(typed, command):
    (answer,), loop, _ = typed(command)
    assert answer.startswith(REFUSED[command]) and loop.sampling == SHORT


def test_settings_and_stops_are_set_and_shown(typed):
    answers, loop, _ = typed("/set temperature 0", "/set stop \\nUser:", "/set", "/help")
    assert loop.sampling.temperature == 0 and loop.sampling.stop == ("\nUser:",)
    assert "temperature         0.0" in answers[2] and "'\\nUser:'" in answers[2]
    assert typed("/set stop x", "/set stop")[1].sampling.stop == ()
    assert "/seed N" in answers[3] and "/reset" not in answers[3]


# A conversation


def test_a_conversation_goes_on_with_what_was_said(typed, models, monkeypatch):
    seen, answers = [], []
    finish_all = Generator.finish_all

    def watch(self, rows):
        seen.append(self.tokenizer.decode(rows[0].prompt))
        finish_all(self, rows)
        answers.append(rows[0].text.strip())

    monkeypatch.setattr(Generator, "finish_all", watch)
    _, _, begun = typed("Hi", "Who?", "/reset", "Hi", chat=True)
    assert begun.startswith("type a message")
    assert seen[0] == seen[2] == "User: Hi\nAssistant:"
    assert seen[1] == f"{seen[0]} {answers[0]}<|endoftext|>User: Who?\nAssistant:"


def test_a_long_conversation_loses_its_oldest_turns(models):
    tokenizer = models["tuned"].tokenizer
    talk = [Message("system", "Be kind.")]
    for n in range(9):
        talk += [Message("user", f"Is it {n}?"), Message("assistant", f"It is {n}.")]
    ids, left_out = chat_ids([*talk, Message("user", "And now?")], tokenizer, 150)
    text = tokenizer.decode(ids)
    assert len(ids) <= 150 and 0 < left_out < 9
    assert text.startswith(f"System: Be kind.\nUser: Is it {left_out}?\nAssistant: It is")
    assert text.endswith("<|endoftext|>User: And now?\nAssistant:")
    with pytest.raises(Exception, match="the message is too long"):
        chat_ids([Message("user", "word " * 60)], tokenizer, 55)
    assert STOP == "\nUser:"


# As a user has it


def test_piped_prompts_are_answered_until_the_end_and_change_no_record(run_copy):
    before = (run_copy / "generate.json").read_bytes()
    words = ["--run_dir", str(run_copy), "--max_new_tokens", "5", "--interactive"]
    done = shell("generate.py", *words, stdin="The lamp\nThe sea\n")
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.count("\ntuned> ") == 3 and done.stdout.count("[cut at 5 tokens]") == 2
    assert (run_copy / "generate.json").read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_several_pasted_lines_are_one_prompt_and_ctrl_c_ends_nothing():
    """In a terminal of its own, so that keys are keys. The line reader alone: it loads no model."""
    code = (
        "from toolkit.writing.line_reader import reader\n"
        "read = reader()\n"
        "while True:\n"
        "    try: print('GOT', repr(read('> ')), flush=True)\n"
        "    except KeyboardInterrupt: print('DROPPED', flush=True)\n"
        "    except EOFError: break\n"
    )
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(PROJECT)
        os.execv(sys.executable, [sys.executable, "-c", code])
    shown = ""

    def until(text):
        nonlocal shown
        end = time.monotonic() + 30
        while text not in shown and time.monotonic() < end:
            if select.select([terminal], [], [], 1)[0]:
                shown += os.read(terminal, 4096).decode(errors="replace")
        assert text in shown
        shown = shown.partition(text)[2]

    until(">")
    os.write(terminal, b"half a line\x03")
    until("DROPPED")
    until(">")  # before that, the terminal's own keys are not the reader's yet
    os.write(terminal, b"\x1b[200~one\rtwo\x1b[201~\r")
    until("GOT 'one\\ntwo'")
    until(">")
    os.write(terminal, b"\x04")
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    os.close(terminal)


def test_a_sample_seed_changes_the_samples_and_nothing_else(run_copy):
    words = ["--run_dir", str(run_copy), "--max_new_tokens", "8", "--prompt", "The lamp"]
    run = RunDirectory(run_copy, seed=7, device="cpu", precision="fp32")
    found = []
    for seed in ("7", "8"):
        generate.main([*words, "--sample_seed", seed])
        found.append(generate.read_samples(run)[0])
    assert found[0] != found[1]
    generate.main(words)
    assert generate.read_samples(run)[0] == found[0]  # the run's own seed is 7
    assert found[0]["endings"] == {"base": ["cut at 8 tokens"], "tuned": ["cut at 8 tokens"]}
    assert (run_copy / "samples.md").read_text().count("*cut at 8 tokens*") == 2
