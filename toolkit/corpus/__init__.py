"""From files, folders, tables or a Hub dataset to documents as token ids.

In come names of sources; out come `Document`s, cut where a text ends, and an Arrow file of their
token ids. Nothing here knows of splits or blocks.
"""
