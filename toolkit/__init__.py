"""The machinery behind the ten steps: one concept per file, named for the concept. Imports no step."""
