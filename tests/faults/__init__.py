"""Kill it anywhere, damage any file, fill the disk, feed it anything: what must come of it.

Every case ends in one of two ways: the same command brings the very result that an undisturbed run
has, or it is refused in one line. `python3 -m tests --faults` does all of it and prints a table;
the normal run does a part, drawn by a seed. docs/reliability.md tells what was found.

    orders.py, workshop.py, watch.py   a command in a process of its own, watched, in milliseconds
    harness.py, harm.py                runs to harm, ways to harm them, and what to call the outcome
    kills.py ... fuzzing.py            the kinds of faults
"""
