"""The house around every step: flags, console, errors, files, records of what is done.

In come a command's words and a run directory; out go options, a locked `RunDirectory`, and records
that say whether a step still holds. Knows nothing of models or text. Any command passes here first.
"""
