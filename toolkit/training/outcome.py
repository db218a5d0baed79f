"""What became of a training: for its record, and for the console."""

from typing import Any

from toolkit.run.console import count
from toolkit.run.run_directory import RunDirectory
from toolkit.training.same_training import describe_changes
from toolkit.training.stream_position import describe_stream, stream_results
from toolkit.training.trainer import PipelineTrainer
from toolkit.training.validation_verdict import how_validation_went, validations_in


def results_of(trainer: PipelineTrainer, continued: list[dict[str, Any]]) -> dict[str, Any]:
    """Return step 7's results. `continued`: see `made_now`."""
    state = trainer.state
    out_of_time = trainer.time_limit is not None and trainer.time_limit.came
    return {
        "steps": state.global_step,
        **trainer.token_count.totals,
        "stopped_early": state.global_step < state.max_steps,
        **({"out_of_time": True} if out_of_time else {}),
        "best_step": state.best_global_step,
        "best_validation_loss": state.best_metric,
        **stream_results(trainer),
        **({"continued": continued} if continued else {}),
        "verdict": how_validation_went(validations_in(state.log_history)),
    }


def describe(results: dict[str, Any], speed: int, run: RunDirectory) -> str:
    """Return what the console says. `speed`: tokens a second."""
    steps, stopped, tokens = count(results["steps"], "step"), "", ""
    if "out_of_time" in results:
        planned = count(run.results("configure_trainer")["steps"], "step")
        steps = f"{results['steps']:,} of {planned}"
        command = f"python3 train_model.py --run_dir {run.path}"
        stopped = f" in the time that it had (on with {command}, then the runner)"
    elif results["stopped_early"]:
        stopped = " (stopped early)"
    if run.results("create_dataset")["completions"]:
        learned = f"{results['tokens_learned']:,} of them learned"
        tokens = f", {results['tokens']:,} tokens of text, {learned},"
    parts = [
        f"trained {steps}{stopped}{tokens} at {speed:,} tokens/s",
        f"best validation loss {results['best_validation_loss']:.3f} at step "
        f"{results['best_step']:,}",
        results["verdict"] + describe_stream(results),
        *map(describe_changes, results.get("continued", [])),
    ]
    return "; ".join(parts)
