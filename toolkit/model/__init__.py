"""GPT-2 itself: its one forward pass, the kernels that compute it, and its files.

In come a folder, a Hub id or a config; out goes a `GPT2LMHeadModel` with its tokenizer, whole or
partly frozen or with adapters. Read `forward.py` first.
"""
