"""Verdicts in a sentence: did training help, and does the model copy what it was trained on."""

from typing import Any

from toolkit.blocks.window_hash import WINDOW_CHARACTERS
from toolkit.scoring import broken_text

COPIES, LOOPS = 0.05, 20  # share of copied windows, tokens in a loop, above which we say so


def judge(metrics: dict[str, Any]) -> dict[str, str]:
    """Return `kind` (better, worse, unclear or unknown) and the `sentence` that says it.

    A model whose samples are no text is not called better, whatever its loss.
    """
    broken = metrics["tuned"].get("broken_share", 0.0)  # earlier versions did not say
    if broken <= broken_text.MOST:
        return judge_loss(metrics)
    verdict = judge_loss(metrics, better="The loss fell")
    kind = "unclear" if verdict["kind"] == "better" else verdict["kind"]
    return {
        "kind": kind,
        "sentence": f"The tuned model does not write text yet: {broken:.0%} of its samples' "
        "characters are broken (\ufffd); train longer, or take a tokenizer that fits the text "
        f"(docs/languages.md). {verdict['sentence']}",
    }


def judge_loss(metrics: dict[str, Any], better: str = "Training worked") -> dict[str, str]:
    """Return what the test split says.

    Better or worse only where the 95% interval of the paired loss difference leaves out zero.
    """
    tuned, base = metrics["tuned"], metrics.get("base")
    after = f"{perplexity(tuned)} on {tuned['tokens']:,} held-out tokens"
    if base is None:
        return {
            "kind": "unknown",
            "sentence": f"The tuned model's perplexity is {after}; the base model was not scored, "
            "so what training changed is not known.",
        }
    change = f"perplexity went from {perplexity(base)} to {after}"
    gap = metrics["difference"]["loss"]
    span = metrics["difference"].get("intervals", {}).get("loss")
    if span is None:
        return {
            "kind": "unclear",
            "sentence": f"Training {'helped' if gap > 0 else 'did not help'} on this test split: "
            f"{change}; it is too small to say how sure that is.",
        }
    sure = f"loss {-gap:+.3f} nats a token, 95% interval {-span[1]:+.3f} to {-span[0]:+.3f}"
    kind = "better" if span[0] > 0 else "worse" if span[1] < 0 else "unclear"
    says = {
        "better": better,
        "worse": "Training made the model worse",
        "unclear": "No clear change",
    }
    return {"kind": kind, "sentence": f"{says[kind]}: {change} ({sure})."}


def perplexity(model: dict[str, Any]) -> str:
    return "infinite" if model["perplexity"] is None else f"{model['perplexity']:,.2f}"


def judge_copying(metrics: dict[str, Any], leak: float | None) -> str:
    """Return one line on what the tuned model's samples copy and repeat.

    `leak`: the share of the test split's own windows that training also has, for comparison.
    """
    copying, repeats = metrics["tuned"]["copying"], metrics["tuned"]["repetition"]
    loop = repeats["longest_loop"]
    loops = f"one repeats itself for {loop} tokens" if loop > LOOPS else "none is caught in a loop"
    if copying["longest_run"] is None:
        return f"Whether the samples copy is not known, for a stream's text is not kept; {loops}."
    share = copying["copied_share"]
    if share is None:
        copied = "The samples are too short to tell copying"
    elif share <= max(COPIES, leak or 0.0):
        copied = "The samples are not copied from the training text"
    else:
        copied = "The samples copy from the training text"
    in_train = f", {share or 0:.1%} of windows of {WINDOW_CHARACTERS} characters are in it"
    windows = "" if share is None else in_train
    held_out = "" if leak is None else f" (of the test text: {leak:.1%})"
    return (
        f"{copied}: the longest run found there is {copying['longest_run']} tokens{windows}"
        f"{held_out if windows else ''}; {loops}."
    )
