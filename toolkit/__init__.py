"""The machinery behind the ten steps: one concept per file, named for it; imports no step."""
