"""Kill it anywhere, damage any file, fill the disk, feed it anything: what must come of it.

Every case ends in one of two ways: the same command brings the very result that an undisturbed run
has, or it is refused in one line. `python3 -m tests --faults` does all of it and prints a table;
the normal run does a part, drawn by a seed.
"""
