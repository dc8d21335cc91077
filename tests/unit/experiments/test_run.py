"""Plans from their name to their tables, at a toy size."""

import json
import math
import sys
from functools import partialmethod

import numpy as np
import pytest
import torch

from mudd_interp import cli
from mudd_interp.checkpoints import load_model
from mudd_interp.experiments import plan, run, tables
from mudd_interp.experiments.plan import Run, Stage
from mudd_interp.experiments.run import RESULT, How, read_result, run_plan
from mudd_interp.experiments.rungs import Size
from mudd_interp.training.packing import stamp
from mudd_interp.training.trainer import CHECKPOINT, LOG, DivergedError, Trainer
from mudd_interp.training.validation import ValidationPack, load_pack

TOY = Run(Size(2, 16, 2), "plain", 0, steps=4, peak_lr=1e-2, batch=2)
BOTH = [TOY, Run(TOY.size, "muddformer", 0, TOY.steps, TOY.peak_lr, TOY.batch)]


@pytest.fixture
def how(tmp_path):
    """Random tokens in the place of the prepared corpus, which takes a minute to make."""
    rng, data = np.random.default_rng(0), tmp_path / "data"
    data.mkdir()
    for split, rows in (("train", 20), ("validation", 4)):
        np.save(data / f"{split}.npy", rng.integers(0, 4096, rows * 257).astype(np.uint16))
    (data / "prepared.json").write_text(json.dumps(stamp(data)))
    return How(data=data)


@pytest.fixture
def few(monkeypatch):
    """A few of the held-out sequences."""
    pack = load_pack()
    monkeypatch.setattr(run, "load_pack", lambda: ValidationPack(pack.tokens[:4], pack.origins[:4]))


@pytest.fixture(autouse=True)
def toy_plan(monkeypatch):
    """A plan of two runs."""
    plans = {"toy": lambda scale, losses: iter([Stage(BOTH)])}
    monkeypatch.setattr(run, "PLANS", plans)
    monkeypatch.setattr(tables, "PLANS", plans)


@pytest.mark.usefixtures("few")
def test_a_plan_leaves_logs_weights_and_results_and_does_nothing_twice(how, tmp_path, monkeypatch):
    out = tmp_path / "runs"
    assert run_plan("toy", out, how) == BOTH
    for each in BOTH:
        folder = out / each.name
        assert {path.name for path in folder.iterdir()} == {LOG, "model", RESULT}
        found = read_result(folder)
        assert found.loss == pytest.approx(sum(found.file_totals) / sum(found.file_tokens))
        assert len(found.positions) == 255
        assert 0 <= found.scores["induction"] <= 1
        assert load_model(folder / "model").weights.count() == found.parameters
    monkeypatch.setattr(Trainer, "run", None)  # it would fail
    assert run_plan("toy", out, how) == BOTH


@pytest.mark.usefixtures("few")
def test_an_interrupted_run_goes_on(how, tmp_path, monkeypatch):
    run_plan("toy", tmp_path / "straight", how)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run", partialmethod(Trainer.run, until=2))
        patch.setattr(run, "save_model", _stop)
        with pytest.raises(KeyboardInterrupt):
            run_plan("toy", tmp_path / "broken", how)
    assert (tmp_path / "broken" / TOY.name / CHECKPOINT).is_file()
    run_plan("toy", tmp_path / "broken", how)
    for each in BOTH:
        results = [read_result(tmp_path / out / each.name) for out in ("straight", "broken")]
        assert results[0] == results[1]


def _stop(*_args, **_values):
    raise KeyboardInterrupt


def test_a_run_that_diverges_is_a_result(how, tmp_path, monkeypatch):
    def diverge(self, lr):
        raise DivergedError("the loss is not finite")

    monkeypatch.setattr(Trainer, "_update", diverge)
    run_plan("toy", tmp_path / "runs", how)
    assert read_result(tmp_path / "runs" / TOY.name).loss is None
    assert run.held_out_loss(TOY, tmp_path / "runs") == math.inf
    kept = tables.collect(tmp_path / "runs", ["toy"])
    assert len(kept.runs) == 2
    assert kept.trained(BOTH) == []


@pytest.mark.usefixtures("few")
def test_tables_come_back_as_they_were_written(how, tmp_path):
    run_plan("toy", tmp_path / "runs", how)
    found = tables.collect(tmp_path / "runs", ["toy"])
    tables.write_tables(found, tmp_path / "tables")
    back = tables.read_tables(tmp_path / "tables")
    assert list(back.runs["name"]) == [each.name for each in BOTH]
    for each in BOTH:
        loss = read_result(tmp_path / "runs" / each.name).loss
        # Summed losses are kept to a thousandth of a nat.
        assert back.losses([each]).mean == pytest.approx(loss, abs=1e-5)
        assert back.by_run("loss")[each.name] == pytest.approx(loss, abs=1e-6)
    assert len(back.positions) == 2 * len(tables.FIRST_OF_BIN)


@pytest.mark.usefixtures("few")
def test_another_machine_goes_on_from_the_results_that_are_kept(how, tmp_path, monkeypatch):
    run_plan("toy", tmp_path / "runs", how)
    kept, names = tmp_path / "results.jsonl.gz", [each.name for each in BOTH]
    tables.keep_results(tmp_path / "runs", names[:1], kept)
    tables.keep_results(tmp_path / "runs", names[1:], kept)
    assert [each.name for each in tables.kept_results(kept)] == sorted(names)
    assert tables.put_back(tmp_path / "other", kept) == 2
    assert tables.put_back(tmp_path / "other", kept) == 0
    monkeypatch.setattr(run, "_trained", lambda *_: pytest.fail("it was trained already"))
    run_plan("toy", tmp_path / "other", how)
    for name in names:
        before, after = (read_result(tmp_path / place / name) for place in ("runs", "other"))
        assert before == after


@pytest.mark.usefixtures("few")
def test_products_in_bfloat16_change_the_loss_a_little(how, tmp_path):
    run_plan("toy", tmp_path / "float32", how)
    run_plan("toy", tmp_path / "bfloat16", How(data=how.data, bfloat16=True))
    losses = [run.held_out_loss(TOY, tmp_path / out) for out in ("float32", "bfloat16")]
    assert 0 < abs(losses[0] - losses[1]) < 0.02
    weights = load_model(tmp_path / "bfloat16" / TOY.name / "model").state_dict().values()
    assert {weight.dtype for weight in weights} == {torch.float32}


def test_bad_input_is_refused_before_anything_begins(how, tmp_path, monkeypatch, capsys):
    with pytest.raises(ValueError, match="toy"):
        run_plan("toi", tmp_path / "runs", how)
    with pytest.raises(ValueError, match="cannot use the device 'cuba'"):
        run_plan("toy", tmp_path / "runs", How(data=how.data, device="cuba"))
    assert not (tmp_path / "runs").exists()
    monkeypatch.setattr(plan, "PLANS", {"ladder": None})
    for options, said in (
        (["ladder", "--peak-lr", "1"], "sets its own learning rates"),
        (["toy", "--jobs", "2"], "are for ladder, vit-pair: leave them out"),
    ):
        command = ["mudd-interp", "train", *options, "--out", str(tmp_path / "runs")]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 2
        assert said in capsys.readouterr().err


@pytest.mark.slow
def test_several_runs_at_once_are_those_of_one_after_the_other(how, tmp_path):
    run_plan("toy", tmp_path / "one", how)
    run_plan("toy", tmp_path / "two", how, jobs=2)
    for each in BOTH:
        results = [read_result(tmp_path / out / each.name) for out in ("one", "two")]
        # Another number of threads may add up in another order.
        assert results[0].loss == pytest.approx(results[1].loss, abs=1e-4)
