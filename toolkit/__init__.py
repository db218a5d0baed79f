"""The machinery behind the ten steps, in rooms. It imports no step.

A room imports only itself and rooms above it in this list; each says at its top what lives there.

    run       flags, console, files, records
    model     GPT-2: forward pass, kernels, folders
    corpus    sources to documents as token ids
    blocks    documents to train, validation and test blocks
    writing   prompts to text
    scoring   blocks to losses and metrics
    training  the Trainer and what stands around it
    report    plots, pages, publishing
    serving   API and page
"""

ROOMS = (
    "run",
    "model",
    "corpus",
    "blocks",
    "writing",
    "scoring",
    "training",
    "report",
    "serving",
)
