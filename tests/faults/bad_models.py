"""Model folders that are not what they say: a list of (name, what makes a good folder so)."""

import json
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HUGE = 10**9
INDEX = "model.safetensors.index.json"
DEEP = b"[" * 10**5
CONFIG = {
    "n_layer": [0, -1, 10_000_000, "two", None, 1.5, [], True],
    "n_head": [0, -1, HUGE, "two", None, 3],
    "n_embd": [0, -32, HUGE, "x", None, {}],
    "n_positions": [0, -1, HUGE, "x", None],
    "vocab_size": [0, -1, HUGE, "x", None],
    "n_inner": [0, -1, HUGE, "x"],
    "activation_function": ["no_such", None, 5, [], "os.system"],
    "layer_norm_epsilon": ["x", None, -1],
    "resid_pdrop": [2, -1, "x", None],
    "attn_pdrop": [2, "x"],
    "embd_pdrop": [2, "x"],
    "model_type": [None, 5, [], "", "../gpt2", "\x1b[31mred\x07"],
    "add_cross_attention": [True, "x"],
}
# Keys that say nothing of a GPT-2 here: whatever stands there, the folder may be opened, too.
ASIDE = {
    "num_labels": [HUGE, -1, "x"],
    "id2label": [5, [], {"x": "y"}, None],
    "dtype": ["no_such", 5, "float1024", []],
    "torch_dtype": ["no_such", 5],
    "bos_token_id": ["x", {}],
    "eos_token_id": ["x", -1, 10**12, [1, 2], {}],  # the tokenizer says what ends a text
    "architectures": [5, {}],
    "use_cache": ["x"],
    "tie_word_embeddings": ["x"],
    "_attn_implementation": ["owner/kernel", "no_such", 5],
    "attn_implementation": ["owner/kernel"],
    "use_kernels": [True],
    "quantization_config": [{}, {"quant_method": "bitsandbytes"}, {"quant_method": "x"}, 5],
    "auto_map": [{"AutoModelForCausalLM": "evil.Model", "AutoConfig": "evil.Config"}, 5],
    "transformers_version": [5, "x"],
    "task_specific_params": [5, []],
    "gradient_checkpointing": ["x"],
    "output_hidden_states": ["x", True],
    "return_dict": ["x", False],
    "problem_type": ["x"],
    "pad_token_id": ["x", HUGE, -1],
    "scale_attn_by_inverse_layer_idx": ["x"],
    "name_or_path": ["\x1b[31m", 5],
    "max_length": ["x", -1],
    "temperature": ["x", 0],
}
TOKENIZER = {
    "model": [
        None,
        "BPE",
        {"type": "NoSuch"},
        {"type": "BPE", "vocab": {}, "merges": []},
        {"type": "BPE", "vocab": {}, "merges": ["a b"]},
        {"type": "BPE", "vocab": {"a": -1}, "merges": []},
        {"type": "BPE", "vocab": {"a": 2**40}, "merges": []},
    ],
    "pre_tokenizer": [
        {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False},
        {"type": "NoSuch"},
        5,
    ],
    "added_tokens": ["x", [5], [{"id": 2**31, "content": "x"}]],
    "decoder": [{"type": "NoSuch"}],
    "normalizer": [{"type": "Replace", "pattern": 5}, {"type": "Replace"}],
    "post_processor": [{"type": "TemplateProcessing"}],
    "truncation": ["x", {"max_length": -1}],
    "padding": ["x"],
    "version": [5, "9.9"],
}
SETTINGS = {
    "tokenizer_class": ["os.system", 5, "NoSuch", "../x", None],
    "auto_map": [{"AutoTokenizer": ["a.B", "a.C"]}, 5],
    "model_max_length": ["x", -1, None],
    "eos_token": [None, 5, {"a": 1}, [], "\x1b[31m"],
    "added_tokens_decoder": [{"x": 1}, 5, {"5": {"content": "\x1b[31m"}}],
    "extra_special_tokens": [5, {"a": 5}],
    "chat_template": [5, "{{ ''.__class__.__mro__ }}"],
    "backend": [5, "x"],
}
WTE = "transformer.wte.weight"
TENSOR = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
ANY_JSON = [None, [1], "x", 5, {}, b"", b"\xff\xfe", b'{"a', DEEP, b'{"a": ' + b"9" * 5000 + b"}"]
CONTENTS: dict[str, list[Any]] = {
    "config.json": [*ANY_JSON, b'{"model_type": "gpt2", "n_layer": NaN}', {"model_type": "gpt2"}],
    "generation_config.json": [
        *ANY_JSON,
        {"max_length": "x", "top_p": []},
        {"eos_token_id": {"a": 1}},
        {"temperature": -1, "do_sample": 5},
    ],
    "tokenizer.json": ANY_JSON,
    "tokenizer_config.json": ANY_JSON,
    "special_tokens_map.json": ANY_JSON,
    "added_tokens.json": ANY_JSON,
    "adapter_config.json": [*ANY_JSON, {"base_model_name_or_path": "../outside"}],
    INDEX: [
        *ANY_JSON,
        *[{"weight_map": value} for value in (None, ["a"], {}, "x", {WTE: 5}, {WTE: None})],
        *[
            {"weight_map": {WTE: path}, "metadata": {}}
            for path in ("../outside/file", "/etc/passwd", "none.safetensors", "x.bin", "", "\0")
        ],
    ],
    "model.safetensors": [
        b"",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 0),
        b"\x80\x04cos\nsystem\n(S'true'\ntR.",
        b"PK\x03\x04" + b"\0" * 99,
    ],
}
HEADERS = [
    [],
    {},
    {WTE: TENSOR | {"shape": [HUGE, HUGE]}},
    {WTE: TENSOR | {"shape": [-1]}},
    {WTE: TENSOR | {"dtype": "X"}},
    {WTE: TENSOR | {"data_offsets": [0, 2**60]}},
    {WTE: 5},
    {WTE: TENSOR, "transformer.wpe.weight": TENSOR},
    {"\x1b[31m": TENSOR},
    {"__metadata__": 5},
    {"__metadata__": {"format": "x"}, WTE: TENSOR},
]


def bad_models() -> Iterator[tuple[str, bool, Callable[[Path], None]]]:
    """Yield name, whether it must be refused, and what spoils a folder of a good model."""
    for must, file, edits in (
        (True, "config.json", CONFIG),
        (False, "config.json", ASIDE),
        (False, "tokenizer.json", TOKENIZER),
        (False, "tokenizer_config.json", SETTINGS),
    ):
        for key, values in edits.items():
            for value in values:
                yield f"{file} {key} {value!r}"[:70], must, edited(file, key, value)
    for file, contents in CONTENTS.items():
        for content in contents:
            must = file in ("config.json", "tokenizer.json", "model.safetensors")
            yield f"{file} = {content!r}"[:70], must, holding(file, content)
    for header in HEADERS:
        text = json.dumps(header).encode()
        content = struct.pack("<Q", len(text)) + text + b"1234"
        yield f"weights {header}"[:70], True, holding("model.safetensors", content)
    for file in CONTENTS:
        must = file in ("config.json", "tokenizer.json", "model.safetensors")
        for kind in (a_device, a_pipe, a_folder, a_link_to_nothing):
            yield f"{file} is {kind.__name__}", must, kind(file)


def edited(file: str, key: str, value: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))

    return change


def holding(file: str, content: Any) -> Callable[[Path], None]:
    """Return what writes a file: bytes, or what becomes JSON. An index comes with no weights."""

    def change(folder: Path) -> None:
        if file == INDEX:
            (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
        whole = content if isinstance(content, bytes) else json.dumps(content).encode()
        (folder / file).write_bytes(whole)

    return change


def a_device(file: str) -> Callable[[Path], None]:
    return lambda folder: (cleared(folder / file)).symlink_to("/dev/zero")


def a_pipe(file: str) -> Callable[[Path], None]:
    return lambda folder: os.mkfifo(cleared(folder / file))


def a_folder(file: str) -> Callable[[Path], None]:
    return lambda folder: cleared(folder / file).mkdir()


def a_link_to_nothing(file: str) -> Callable[[Path], None]:
    return lambda folder: cleared(folder / file).symlink_to("no-such-file")


def cleared(path: Path) -> Path:
    path.unlink(missing_ok=True)
    return path
