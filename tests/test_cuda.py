"""The chain on a CUDA card, where there is one."""

import json

import pytest
import torch

from tests.conftest import shell

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA card here")


def test_the_chain_on_cuda_agrees_with_the_cpu(finished, all_flags, tmp_path):
    words = [word for word in all_flags if word not in ("--device", "cpu")]
    words += ["--device", "cuda", "--precision", "fp32", "--run_dir", str(tmp_path / "run")]
    done = shell("run_pipeline.py", *words)
    assert done.returncode == 0, done.stderr
    base = [
        json.loads((run / "evaluate_model.json").read_text())["results"]["base"]["loss"]
        for run in (finished.path, tmp_path / "run")
    ]
    assert base[0] == pytest.approx(base[1], abs=1e-2)


def test_mixed_precision_is_picked_on_cuda(tmp_path):
    from import_modules import RunOptions

    assert RunOptions(run_dir=str(tmp_path)).picked_device == "cuda"
    assert RunOptions(run_dir=str(tmp_path)).picked_precision in ("bf16", "fp16")
