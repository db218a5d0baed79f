"""Check step 8's word perplexity against that of lm-eval (EleutherAI) on the same text.

    python3 -m pip install -r benchmarks/requirements.txt
    python3 benchmarks/lm_eval_check.py MODEL_FOLDER TEXT_FILE

lm-eval's rolling windows predict every token of a text once, end-of-text before the first, each
window beginning with the last token of the one before. That is our stride of block_size - 1.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    __import__("install_libraries").enter_environment()

import argparse
import math
from pathlib import Path

from toolkit.run.command import UserError, command


def ours(folder: str, text: str, size: int) -> dict[str, float]:
    """Return word perplexity and bits per byte by this project's scoring, in float32."""
    import numpy as np
    from datasets import Dataset

    from toolkit.blocks.collator import collate
    from toolkit.model import gpt2
    from toolkit.model.tokenizer_files import open_tokenizer
    from toolkit.scoring.losses import score_pieces
    from toolkit.scoring.metrics import as_metrics
    from toolkit.scoring.text_counts import count_text
    from toolkit.scoring.windows import find_pieces

    model, tokenizer = gpt2.open_model(Path(folder)).eval(), open_tokenizer(Path(folder))
    ids = [tokenizer.eos_token_id, *tokenizer(text)["input_ids"]]
    if len(ids) < size:
        raise UserError(f"the text has {len(ids)} tokens, --block_size is {size}: lower it")
    ids = np.array(ids[: len(ids) // size * size])
    rows = Dataset.from_dict({"input_ids": ids.reshape(-1, size)}).with_format("numpy")
    pieces = find_pieces(rows, tokenizer.eos_token_id)
    sums = score_pieces(model, rows, collate, pieces, size - 1, "fp32", "ours")
    counts = count_text(rows, tokenizer, collate, pieces, size - 1)
    figures = as_metrics({name: values.sum() for name, values in (sums | counts).items()})
    return figures | {"text": tokenizer.decode(ids[1:])}


def theirs(folder: str, text: str, size: int) -> dict[str, float]:
    """Return the same by lm-eval's own model class."""
    try:
        from lm_eval.api.instance import Instance
        from lm_eval.models.huggingface import HFLM
    except ImportError:
        raise UserError(
            "lm-eval is needed; run: python3 -m pip install -r benchmarks/requirements.txt"
        ) from None

    model = HFLM(pretrained=folder, device="cpu", dtype="float32", max_length=size - 1)
    request = Instance(request_type="loglikelihood_rolling", doc={}, arguments=(text,), idx=0)
    nats = -model.loglikelihood_rolling([request])[0]
    return {
        "word_perplexity": math.exp(nats / len(text.split())),
        "bits_per_byte": nats / math.log(2) / len(text.encode()),
    }


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--block_size", type=int, default=256)
    options = parser.parse_args(argv)
    text = Path(options.text).read_text(encoding="utf-8")
    mine = ours(options.model, text, options.block_size)
    lm_eval = theirs(options.model, mine.pop("text"), options.block_size)
    for name, value in lm_eval.items():
        print(f"{name}: ours {mine[name]:.6f}, lm-eval {value:.6f}, ratio {mine[name] / value:.8f}")


if __name__ == "__main__":
    main()
