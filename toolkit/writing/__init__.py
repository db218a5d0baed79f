"""The model writes: a prompt goes in, tokens are picked one by one, text comes out.

In come prompts and a `Sampling`; out come `Continuation`s, many in one batch, each the same alone
as among others. Read `generator.py` first, then `token_choice.py`.
"""
