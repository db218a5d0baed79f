"""The steps in their order: the one list. A new step is a file and a line here."""

STEPS = (
    "install_libraries",
    "import_modules",
    "load_gpt2",
    "create_dataset",
    "train_test_split",
    "configure_trainer",
    "train_model",
    "evaluate_model",
    "visualize_performance",
    "generate",
)


def number_of(step: str) -> int:
    """`train_test_split` -> 5"""
    return STEPS.index(step) + 1


def label(step: str) -> str:
    """Return what the console's line of a step begins with: `train_test_split` -> `[5/10]`."""
    return f"[{number_of(step)}/{len(STEPS)}]"
