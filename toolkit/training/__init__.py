"""Training: the library's Trainer with what is changed of it, and what happens beside its steps.

In come a model, splits and a plan; out come checkpoints, a log and honest speeds. `trainer.py`
lists all that is replaced of the library's.
"""
