"""From documents to what a model trains on: hold whole documents out, then pack into blocks.

In come documents as token ids, in a file or as a stream; out come train, validation and test, rows
of equally many token ids, and an account of every token and of what train shares with test.
"""
