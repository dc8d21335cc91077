"""Presets, and the toy preset from its name to its weights."""

import json
import signal
import subprocess
import sys
import time
from functools import partialmethod
from typing import cast

import numpy as np
import psutil
import pytest
import torch

from mudd_interp import cli
from mudd_interp.checkpoints import load_model
from mudd_interp.model import HookedMUDDTransformer
from mudd_interp.model.wirings import MUDD
from mudd_interp.training.packing import stamp
from mudd_interp.training.presets import PRESETS, members
from mudd_interp.training.run import RunOptions, run_preset
from mudd_interp.training.trainer import CHECKPOINT, LOG, Trainer

LONG = 5_000
"""Steps of the toy, which take a minute or more."""


@pytest.fixture
def data(tmp_path):
    """Random tokens in place of the prepared corpus, which takes a minute to make."""
    rng = np.random.default_rng(0)
    for split, rows in (("train", 4 * LONG), ("validation", 100)):
        np.save(tmp_path / f"{split}.npy", rng.integers(0, 4096, rows * 257).astype(np.uint16))
    (tmp_path / "prepared.json").write_text(json.dumps(stamp(tmp_path)))
    return tmp_path


def test_the_pair_differs_in_its_connections_only():
    mudd, plain = (PRESETS[name] for name in ("mudd-tiny", "tfm-tiny"))
    assert mudd.recipe == plain.recipe
    assert sum(mudd.cfg.mlp_widths) == sum(plain.cfg.mlp_widths) == 4224
    assert (mudd.cfg.mlp_widths[0], mudd.cfg.mlp_widths[-1]) == (176, 528)  # 0.5 and 1.5 times 352
    same = mudd.cfg.plain().to_dict() | {"d_mlp": None}
    assert same == plain.cfg.to_dict() | {"d_mlp": None}


def test_names_and_near_misses():
    assert members("tiny-pair") == ("mudd-tiny", "tfm-tiny")
    assert members("toy") == ("toy",)
    with pytest.raises(ValueError, match="mudd-tiny"):
        members("mud-tiny")


def test_the_toy_preset_trains_and_its_weights_load(data, tmp_path):
    out = tmp_path / "runs"
    run_preset("toy", out, RunOptions(data=data, steps=3))
    model = cast(HookedMUDDTransformer, load_model(out / "toy" / "model"))
    # W_2 begins as zero, and has learned.
    assert model.config.wiring == MUDD()
    assert model.get_parameter("dense.0.W_2").abs().max() > 0
    assert model.to_str_tokens("def f") == ["def", " f"]
    assert len((out / "toy" / "log.csv").read_text().splitlines()) == 2  # header, step 3


def train_until(step, monkeypatch, out, data):
    """Run the toy for a part of its steps only."""
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run", partialmethod(Trainer.run, until=step))
        run_preset("toy", out, RunOptions(data=data, steps=LONG))
    assert torch.load(out / "toy" / CHECKPOINT)["step"] == step


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_bad_input_to_one_of_two_processes_is_the_message_of_both(
    data, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "runs"
    run_preset("toy-plain", out, RunOptions(data=data, steps=2))
    before = contents(out / "toy-plain")
    command = ["train", "toy-pair", "--parallel", "--out", out, "--data", data, "--steps", LONG]
    monkeypatch.setattr(sys, "argv", ["mudd-interp", *map(str, command)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("mudd-interp: toy-plain: ")
    assert f"was trained with steps=2, this run wants {LONG}: choose another output" in message
    assert f"checkpoints in {out} stay" in message
    assert "Traceback" not in message
    assert contents(out / "toy-plain") == before


@pytest.mark.slow
def test_a_process_that_dies_stops_the_other_whose_run_goes_on_later(data, tmp_path, monkeypatch):
    out = tmp_path / "runs"
    train_until(2, monkeypatch, out, data)
    checkpoint, log = out / "toy" / CHECKPOINT, out / "toy" / LOG
    saved = checkpoint.read_bytes()
    command = [sys.executable, "-m", "mudd_interp", "train", "toy-pair", "--parallel"]
    command += ["--out", str(out), "--data", str(data), "--steps", str(LONG)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as parent:
        while "\n10," not in (log.read_text() if log.exists() else ""):
            assert parent.poll() is None
            time.sleep(0.1)
        running = psutil.Process(parent.pid).children()
        [plain] = [process for process in running if "toy-plain" in process.cmdline()]
        plain.send_signal(signal.SIGKILL)
        message = parent.communicate()[1]
    assert parent.returncode == 1
    assert not any(process.is_running() for process in running)
    assert message.startswith("mudd-interp: training toy-plain ended with the signal SIGKILL. ")
    assert "Traceback" not in message
    assert {path.name for path in (out / "toy").iterdir()} == {CHECKPOINT, LOG, "model"}
    assert checkpoint.read_bytes() == saved
    train_until(4, monkeypatch, out, data)


@pytest.mark.slow
def test_a_killed_command_leaves_no_process_that_writes(data, tmp_path, monkeypatch):
    out = tmp_path / "runs"
    command = [sys.executable, "-m", "mudd_interp", "train", "toy-pair", "--parallel"]
    command += ["--out", str(out), "--data", str(data), "--steps", str(LONG)]
    log = out / "toy" / LOG
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as parent:
        while "\n10," not in (log.read_text() if log.exists() else ""):
            assert parent.poll() is None
            time.sleep(0.1)
        running = psutil.Process(parent.pid).children()
        parent.kill()
    assert len(running) == 2
    assert psutil.wait_procs(running, timeout=120)[1] == []
