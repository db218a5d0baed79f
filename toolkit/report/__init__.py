"""What a reader sees of a run: plots, report, model card, comparison, publishing.

In come records and the training log; out come pictures and pages. Nothing is computed here that a
record does not say.
"""
