"""Every field of transformers.TrainingArguments: obeyed, set by our flags, or refused, and why.

`--trainer KEY=VALUE` takes what is obeyed. What would be ignored, or would undo what this pipeline
promises, is refused with what to do instead. A field that a newer version of the library brings is
refused too, until it stands here: tests/training/test_library_fields.py names it.
"""

# Each changes what the library's Trainer does here, as the library documents it.
OBEYED = {
    "optim",
    "optim_args",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "max_grad_norm",
    "lr_scheduler_kwargs",
    "activation_checkpointing",
    "activation_checkpointing_kwargs",
    "gradient_checkpointing",  # the former name
    "gradient_checkpointing_kwargs",
    "tf32",
    "full_determinism",
    "torch_empty_cache_steps",
    "data_seed",
    "dataloader_num_workers",
    "dataloader_prefetch_factor",
    "logging_first_step",
    "log_level",
    "log_level_replica",
    "log_on_each_node",
    "run_name",
    "project",
}
JSON = {field for field in OBEYED if field.endswith("_kwargs")}  # their values are JSON objects
OF_BLOCKS = {  # obeyed but for a stream, for which there is a reason not to
    "data_seed": "a stream is shuffled by --seed; leave it out",
    "dataloader_num_workers": "a stream is read ahead by a thread of its own; leave it out",
}

FLAGS = {  # field -> the flag that sets it
    **{
        name: f"--{name}"
        for name in (
            "num_train_epochs",
            "max_steps",
            "per_device_train_batch_size",
            "gradient_accumulation_steps",
            "learning_rate",
            "warmup_steps",
            "lr_scheduler_type",
            "weight_decay",
            "eval_steps",
            "save_steps",
            "logging_steps",
            "torch_compile",
            "report_to",
            "seed",
        )
    },
    "output_dir": "--run_dir",
    "use_cpu": "--device cpu",
    "bf16": "--precision bf16",
    "fp16": "--precision fp16",
    "bf16_full_eval": "--precision bf16, which holds for validation too",
    "fp16_full_eval": "--precision fp16, which holds for validation too",
    "torch_compile_backend": "--torch_compile",
    "torch_compile_mode": "--torch_compile",
    "auto_find_batch_size": "--per_device_train_batch_size auto",
    "resume_from_checkpoint": "--resume",
    "eval_strategy": "--eval_steps",
    "eval_delay": "--eval_steps",
    "logging_strategy": "--logging_steps",
    "push_to_hub": "the runner's --push_to_hub, which publishes the finished run, private",
}

SHARED_OUT = "step 7 shares the work out among processes itself: see torchrun in docs/training.md"
ON_EVERY_CARD = "take torchrun: a GPT-2 fits on every card"
SUMS = "validation adds up the losses of all tokens, in batches of its own, and keeps no logits"
BEST = "the best is the lowest validation loss: that checkpoint and the newest are kept"
BY_STEPS = "step 7 trains, step 8 evaluates, whatever this says"
LOG_IN = "log in with `hf auth login` and take the runner's --push_to_hub"
TRACKIO = "a tracker's data stays on this machine: send it yourself, with trackio's own commands"

REFUSED = {  # field -> why, and what to do
    **dict.fromkeys(
        (
            "average_tokens_across_devices",
            "accelerator_config",
            "parallelism_config",
            "ddp_find_unused_parameters",
            "ddp_bucket_cap_mb",
            "ddp_broadcast_buffers",
            "ddp_static_graph",
            "ddp_backend",
            "ddp_timeout",
            "local_rank",
            "save_on_each_node",
        ),
        SHARED_OUT,
    ),
    **dict.fromkeys(("deepspeed", "fsdp", "fsdp_config"), ON_EVERY_CARD),
    **dict.fromkeys(
        (
            "per_device_eval_batch_size",
            "prediction_loss_only",
            "eval_do_concat_batches",
            "eval_use_gather_object",
            "eval_accumulation_steps",
            "include_for_metrics",
            "batch_eval_metrics",
            "label_names",
        ),
        SUMS,
    ),
    **dict.fromkeys(
        (
            "save_strategy",
            "save_total_limit",
            "load_best_model_at_end",
            "metric_for_best_model",
            "greater_is_better",
        ),
        BEST,
    ),
    **dict.fromkeys(("do_train", "do_eval", "do_predict"), BY_STEPS),
    **dict.fromkeys(
        (
            "hub_token",
            "hub_private_repo",
            "hub_model_id",
            "hub_strategy",
            "hub_always_push",
            "hub_revision",
        ),
        LOG_IN,
    ),
    **dict.fromkeys(("trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"), TRACKIO),
    "label_smoothing_factor": "the losses here are true cross entropies",
    "neftune_noise_alpha": "the forward pass here adds no noise; --from_scratch has --dropout",
    "use_liger_kernel": "head and loss are fused already",
    "liger_kernel_config": "head and loss are fused already",
    "optim_target_modules": "no optimizer here picks modules; --lora_rank trains in little memory",
    "use_cache": "training keeps no keys and values; writing does by itself",
    "include_num_input_tokens_seen": "the tokens of text that are trained on are counted anyway",
    "logging_nan_inf_filter": "a loss that is no number stops training, and is logged",
    "eval_on_start": "the untrained model is validated before the first step anyway",
    "disable_tqdm": "set the environment variable TQDM_DISABLE=1",
    "save_only_model": "an interrupted training could not go on",
    "enable_jit_checkpoint": "Ctrl-C and SIGTERM save a checkpoint already",
    "ignore_data_skip": "an interrupted training goes on from the very block",
    "restore_callback_states_from_checkpoint": "a checkpoint's counts are restored already",
    "dataloader_drop_last": "every block is trained on, as the plan counts",
    "dataloader_pin_memory": "memory is pinned where there is a CUDA card",
    "dataloader_persistent_workers": "dataloader_num_workers alone will do",
    "dataloader_multiprocessing_context": "dataloader_num_workers forks; leave it out",
    "dataloader_in_order": "blocks come in the order that the seed draws, in every run the same",
    "remove_unused_columns": "blocks hold what training reads and nothing else",
    "train_sampling_strategy": "blocks are drawn at random, so that a training can be gone on with",
    "length_column_name": "blocks are drawn at random, so that a training can be gone on with",
    "debug": "a loss that is no number stops training, and says at which step",
    "skip_memory_metrics": "the peak of memory is in the log",
}

FORMER = {  # names that the library has given up, still found in many a recipe
    "warmup_ratio": "--warmup_steps, which below 1 is a share of all steps",
    "evaluation_strategy": "--eval_steps",
    "logging_dir": "--run_dir, or the environment variable TENSORBOARD_LOGGING_DIR",
    "no_cuda": "--device cpu",
    "use_mps_device": "--device mps",
    "overwrite_output_dir": "the runner's --force",
    "save_safetensors": "nothing: weights are always saved as safetensors",
    "group_by_length": "nothing: blocks have one length, and of examples no padding is computed",
    "per_gpu_train_batch_size": "--per_device_train_batch_size",
    "half_precision_backend": "--precision",
    "fp16_opt_level": "--precision",
}


def why_not(field: str) -> str | None:
    """Return what to do instead of setting a field, or None where it is obeyed or not known."""
    if flag := FLAGS.get(field, FORMER.get(field)):
        return f"take {flag}"
    return REFUSED.get(field)
