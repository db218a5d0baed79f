"""What the test split says of a model: losses token by token, metrics, intervals, copying.

In come blocks and a model; out come sums for each piece of text, and from these the figures that
step 8 records. `losses.py` scores; `metrics.py` says what the figures mean.
"""
