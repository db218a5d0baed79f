"""The tests. `python3 -m tests` installs what they need, once, and runs them all."""
