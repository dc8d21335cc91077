"""The vision pair from the command to its card, on a few made images."""

import gzip
import json
import struct
import sys
from dataclasses import replace
from functools import partialmethod
from pathlib import Path

import numpy as np
import pytest
import torch

from mudd_interp import cli, inspection
from mudd_interp.checkpoints import load_model
from mudd_interp.experiments.gaps import paired_gap
from mudd_interp.experiments.run import RESULT, How
from mudd_interp.experiments.vision import bundle, run
from mudd_interp.experiments.vision.facts import (
    image_table,
    measured,
    read_pair,
    run_facts,
    score_facts,
)
from mudd_interp.experiments.vision.plan import (
    RATES,
    TRIAL_STEPS,
    WIRINGS,
    PairScale,
    VisionRun,
    config,
    pair_plan,
)
from mudd_interp.experiments.vision.run import (
    class_losses,
    fresh_vit,
    learnt_from,
    read_result,
    run_pair,
)
from mudd_interp.files import csv_table
from mudd_interp.images import model_input, read_split
from mudd_interp.training.card import LANGUAGE_CARD, VISION_CARD
from mudd_interp.training.schedule import kernel_decays
from mudd_interp.training.trainer import CHECKPOINT, LOG, Trainer

SMALL = PairScale(steps=2, seeds=2, peak_lr=1e-3)
N_TEST = 12


@pytest.fixture
def data(tmp_path) -> Path:
    """Images of 8 × 8 whose brightness tells the class, as four idx files."""
    folder, rng = tmp_path / "data", np.random.default_rng(0)
    folder.mkdir()
    for name, count in (("train", 80), ("t10k", N_TEST)):
        labels = rng.permutation(np.arange(count) % 3).astype(np.uint8)
        noise = rng.integers(0, 50, (count, 8, 8))
        pixels = (noise + 100 * labels[:, None, None].astype(int)).astype(np.uint8)
        for kind, numbers in (("images-idx3", pixels), ("labels-idx1", labels)):
            shape = struct.pack(f">{numbers.ndim}I", *numbers.shape)
            content = bytes([0, 0, 8, numbers.ndim]) + shape + numbers.tobytes()
            (folder / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(content))
    return folder


def test_the_plan_tries_rates_and_then_pairs_the_two_seed_by_seed():
    def losses(each: VisionRun) -> float:
        assert each.trial
        return abs(np.log2(each.peak_lr / 2e-3))

    stages = list(pair_plan(58_000, PairScale(), losses))
    trials = [each for stage in stages if stage.sweep for each in stage.runs]
    assert {each.peak_lr for each in trials} == {*RATES}
    assert {each.steps for each in trials} == {TRIAL_STEPS}
    runs = [each for stage in stages if not stage.sweep for each in stage.runs]
    assert [(each.model, each.seed) for each in runs] == [(m, s) for s in range(3) for m in WIRINGS]
    assert {each.steps for each in runs} == {3625}  # 1 epoch of 58,000 in batches of 16
    assert {each.peak_lr for each in runs} == {2e-3}
    assert len({each.name for each in (*trials, *runs)}) == len(trials) + len(runs)
    short = [e for stage in pair_plan(64, PairScale(epochs=1), losses) for e in stage.runs]
    assert len({each.name for each in short}) == len(short)  # a trial is never taken for a run


def test_the_two_differ_in_wiring_only_and_begin_as_the_same_function(data):
    split = read_split(data)
    configs = [config(name, split) for name in WIRINGS]
    assert replace(configs[0], wiring=configs[1].wiring) == configs[1]
    models = [fresh_vit(cfg, 3) for cfg in configs]
    assert models[0].embed.W_E.std().item() == pytest.approx(1 / 4, rel=0.05)  # of 16 pixels
    assert not torch.equal(models[0].embed.W_E, fresh_vit(configs[0], 4).embed.W_E)
    mudd, plain = (dict(model.named_parameters()) for model in models)
    shared = plain.keys() & mudd.keys()
    assert all(".ln1." in name for name in plain.keys() - shared)  # one norm, where MUDD has four
    assert all(torch.equal(mudd[name], plain[name]) for name in shared)
    given = model_input(split.test.pixels)
    with torch.no_grad():
        outputs = [model(given, return_type="logits") for model in models]
    assert torch.equal(*outputs)
    decayed = {n for n, p in models[0].named_parameters() if kernel_decays(n, p)}
    assert {"embed.W_E", "unembed.W_U", "blocks.0.attn.W_Q", "dense.0.W_1"} < decayed
    assert not any(name.endswith((".a", ".w", ".b")) or ".b_" in name for name in decayed)


def test_runs_leave_logs_weights_and_results_and_nothing_is_done_twice(data, tmp_path, monkeypatch):
    out, how = tmp_path / "runs", How(data=data)
    runs = run_pair(out, how, SMALL)
    split = read_split(data)
    assert split.test.labels is not None
    for each in runs:
        folder = out / each.name
        assert {path.name for path in folder.iterdir()} == {LOG, "model", RESULT}
        header = (folder / LOG).read_text().splitlines()[0]
        assert '"images","train_loss"' in header
        assert '"images_per_second"' in header
        found = read_result(folder)
        assert found.run == each
        assert found.images == 72
        model = load_model(folder / "model")
        losses, predicted = class_losses(model, split.test, batch=5)
        assert found.test_losses == pytest.approx(losses.tolist(), abs=1e-6)
        assert found.test_predicted == tuple(predicted.tolist())
        targets = torch.from_numpy(split.test.labels)
        mean = model(model_input(split.test.pixels), return_type="loss", target=targets)
        assert losses.mean() == pytest.approx(mean.item(), abs=1e-6)
        held = class_losses(model, learnt_from(split)[1])[0]
        assert len(held) == 8
        assert found.loss == pytest.approx(held.mean(), abs=1e-6)
    monkeypatch.setattr(Trainer, "run", None)  # it would fail
    assert run_pair(out, how, SMALL) == runs


def test_a_trial_never_sees_the_test_set(data, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(run, "class_losses", lambda _, images: seen.append(images) or (np.ones(1),))
    trial = VisionRun("vit-tiny", 0, 1, 1e-3, trial=True)
    run.train_run(trial, tmp_path, How(data=data))
    found = read_result(tmp_path / trial.name)
    assert [len(images) for images in seen] == [8]
    assert found.test_losses == found.test_predicted == ()
    assert found.loss == run.held_out_loss(trial, tmp_path) == 1


def _stop(*_args, **_values):
    raise KeyboardInterrupt


def test_an_interrupted_run_goes_on_to_the_bit(data, tmp_path, monkeypatch):
    how, scale = How(data=data), PairScale(steps=4, seeds=1, peak_lr=1e-3)
    runs = run_pair(tmp_path / "straight", how, scale)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run", partialmethod(Trainer.run, until=2))
        patch.setattr(run, "_measured", _stop)
        with pytest.raises(KeyboardInterrupt):
            run_pair(tmp_path / "broken", how, scale)
    assert (tmp_path / "broken" / runs[0].name / CHECKPOINT).is_file()
    run_pair(tmp_path / "broken", how, scale)
    for each in runs:
        one, other = (read_result(tmp_path / out / each.name) for out in ("straight", "broken"))
        assert one == other


@pytest.mark.slow
def test_training_lowers_the_loss(data, tmp_path):
    (mudd, plain) = run_pair(tmp_path, How(data=data), PairScale(steps=40, seeds=1, peak_lr=3e-3))
    for each in (mudd, plain):
        assert run.held_out_loss(each, tmp_path) < 0.5 * np.log(3)


def result(model: str, seed: int, losses, predicted) -> run.VisionResult:
    return run.VisionResult(
        run=VisionRun(model, seed, 2, 1e-3),
        loss=1.0,
        test_losses=tuple(map(float, losses)),
        test_predicted=tuple(predicted),
        parameters=9,
        images=32,
        digests=("a", "b"),
        device="cpu",
        bfloat16=False,
        torch="2",
    )


def test_scores_by_hand():
    labels = [0, 1, 1, 0]
    pair = [
        result("mudd-vit-tiny", 0, [1, 2, 1, 0], [0, 1, 1, 0]),
        result("vit-tiny", 0, [2, 2, 2, 2], [0, 1, 0, 1]),
        result("mudd-vit-tiny", 1, [1, 1, 1, 1], [0, 1, 1, 1]),
        result("vit-tiny", 1, [1, 2, 3, 4], [1, 0, 0, 0]),
    ]
    table = image_table(pair, labels)
    assert measured(table, "vit-tiny", "accuracy").tolist() == [[1, 1, 0, 0], [0, 0, 0, 1]]
    facts = score_facts(table)
    loss, accuracy = facts["loss"], facts["accuracy"]
    assert loss["models"] == {"mudd-vit-tiny": [1, 1], "vit-tiny": [2, 2.5]}
    assert loss["difference"]["mean"] == -1.25
    assert accuracy["models"] == {"mudd-vit-tiny": [1, 0.75], "vit-tiny": [0.5, 0.25]}
    assert accuracy["difference"]["mean"] == 0.5
    gap = paired_gap(np.array([-1.0, -1.5]))
    assert loss["difference"]["p"] == gap.p
    low, high = loss["difference"]["seeds"]
    assert high - low == pytest.approx(2 * gap.half_width)
    assert accuracy["difference"]["p"] == 0  # 0.5 for both seeds
    # Mean differences of the images, -0.5 -0.5 -1.5 -2.5: no bootstrap mean is beyond them.
    low, high = loss["difference"]["images"]
    assert -2.5 <= low < -1.25 < high <= -0.5


def test_runs_that_do_not_belong_together_are_refused(data, tmp_path):
    out, how = tmp_path / "runs", How(data=data)
    with pytest.raises(ValueError, match="expected both models of two seeds or more"):
        read_pair(out)
    run_pair(out, how, replace(SMALL, seeds=1))
    with pytest.raises(ValueError, match="expected both models of two seeds or more"):
        read_pair(out)
    run_pair(out, how, SMALL)
    pair, trials = read_pair(out)
    assert [(e.run.seed, e.run.model) for e in pair] == [(s, m) for s in (0, 1) for m in WIRINGS]
    assert not trials
    assert run_facts(pair, trials, 8)["epochs"] == 0.444  # 32 images of 72
    path = out / pair[0].run.name / RESULT
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"digests": ["x", "y"]}))
    with pytest.raises(ValueError, match="differ in images"):
        read_pair(out)
    path.write_text(json.dumps(values | {"loss": None}))
    with pytest.raises(ValueError, match="all of them complete"):
        read_pair(out)


@pytest.mark.slow
def test_the_pair_is_bundled_with_a_card_that_its_table_gives_again(data, tmp_path, monkeypatch):
    out, target = tmp_path / "runs", tmp_path / "bundled"
    run_pair(out, How(data=data), replace(SMALL, peak_lr=None))
    with pytest.raises(ValueError, match="expected runs on Fashion-MNIST"):
        bundle.bundle(out, data, target)
    assert not target.exists()
    monkeypatch.setattr(bundle, "FASHION_DIGEST", read_split(data).test.digest)
    target.mkdir()
    (target / LANGUAGE_CARD).write_bytes((bundle.BUNDLED / LANGUAGE_CARD).read_bytes())
    facts = bundle.bundle(out, data, target)
    assert json.loads((target / VISION_CARD).read_text()) == json.loads(json.dumps(facts))
    table = bundle.read_image_table(target)
    assert score_facts(table) == facts["scores"]
    assert csv_table(table) == gzip.decompress((target / bundle.IMAGES).read_bytes())
    for name, stored in facts["stored"].items():
        model = load_model(target / name)
        losses, _ = class_losses(model.float(), read_split(data).test)
        assert losses.mean() == pytest.approx(stored["loss"], abs=1e-6)
        assert 0 < abs(stored["loss"] - stored["loss_before_storage"]) < bundle.LARGEST_SHIFT
        assert (target / f"{name}.log.csv").is_file()
    monkeypatch.setattr(inspection, "BUNDLED_FOLDER", target)
    monkeypatch.setattr(inspection, "BUNDLED", tuple(WIRINGS))
    inspection._card.cache_clear()
    said = inspection.training_facts("vit-tiny")
    inspection._card.cache_clear()
    assert said["training images"] == "32"
    assert f"{facts['stored']['vit-tiny']['loss']:.4f}" in said["test loss"]
    text = (target / "README.md").read_text()
    for words in ("# mudd-tiny and tfm-tiny", "# mudd-vit-tiny and vit-tiny", "Zalando SE"):
        assert words in text
    assert f"{100 * facts['stored']['vit-tiny']['accuracy']:.2f} %" in text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["vit-pair", "--data", "nowhere"], "no train-images-idx3-ubyte.gz in"),
        (["vit-pair", "--parallel"], "leave out --parallel"),
        (["vit-pair", "--epochs", "1", "--steps", "2"], "in place of --steps"),
        (["ladder", "--epochs", "1"], "--epochs is for vit-pair"),
        (["vit-pair", "--device", "cuba"], "cannot use the device 'cuba'"),
    ],
)
def test_bad_input_is_refused_first(options, said, data, tmp_path, monkeypatch, capsys):
    given = [*options, *([] if "--data" in options else ["--data", str(data)])]
    command = ["mudd-interp", "train", *given, "--out", str(tmp_path / "runs")]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_images_that_patches_do_not_fill_are_refused(data):
    split = read_split(data)
    seven = replace(split.train, pixels=split.train.pixels[:, :7, :7])
    with pytest.raises(ValueError, match="patch_size must divide image_size"):
        config("vit-tiny", replace(split, train=seven))
    narrow = replace(split.train, pixels=split.train.pixels[:, :4])
    with pytest.raises(ValueError, match="expected square images, got 4 × 8"):
        config("vit-tiny", replace(split, train=narrow))
