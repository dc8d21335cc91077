"""Two processes under torchrun give the numbers of one."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mudd_interp.analysis import (
    AblationAnalysis,
    AblationSweep,
    DenseWeights,
    EdgeAttribution,
    HeadActivity,
    HeadActivityAnalysis,
    HeadInputs,
    HeadInputsAnalysis,
    InContextLoss,
    InContextLossAnalysis,
    LayerSimilarity,
    LossComparison,
    LossComparisonAnalysis,
    SimilarityMatrix,
    StreamNorms,
    merge_over_ranks,
    sweep,
    sweep_over_ranks,
)
from mudd_interp.analysis.finite import arrays_of
from tests.parity.family import FAMILY, random_model, random_tokens

ROOT = Path(__file__).parents[3]
KINDS = {
    "similarity": LayerSimilarity,
    "weights": DenseWeights,
    "activity": HeadActivity,
    "matrix": SimilarityMatrix,
    "norms": StreamNorms,
    "ablation": AblationSweep,
    "attribution": EdgeAttribution,
    "comparison": LossComparison,
    "in_context": InContextLoss,
    "inputs": HeadInputs,
}
CORPORA = (5, 1)  # batches; of one batch, one process gets nothing
AVERAGES = [
    "layer_similarity",
    "dense_weights",
    HeadActivityAnalysis([1, 2]),
    "similarity_matrix",
    "stream_norms",
]
ANALYSES = [
    *AVERAGES,
    AblationAnalysis(("cut v 1<-0", "cut mlp 0; cut head 2.1")),
    "edge_attribution",
    LossComparisonAnalysis(random_model(FAMILY["Transformer++"]), top=4),
    InContextLossAnalysis(early=2, late=5, reach=0),
    HeadInputsAnalysis(2, 1),
]

SCRIPT = """
import sys
from datetime import timedelta
import torch.distributed as dist
from mudd_interp.analysis import sweep_over_ranks
from tests.unit.analysis import test_distributed as here

dist.init_process_group("gloo", timeout=timedelta(seconds=120))
for n_batches in here.CORPORA:
    model, batches = here.work(n_batches)
    results = sweep_over_ranks(model, batches, here.ANALYSES)
    for name, result in zip(here.KINDS, results):
        result.save(f"{sys.argv[1]}/{n_batches}.{name}.{dist.get_rank()}")
dist.destroy_process_group()
"""


def work(n_batches):
    model = random_model(FAMILY["MUDDFormer"])
    shapes = [(2, 7), (2, 7), (2, 7), (1, 7), (1, 3)][-n_batches:]
    return model, [random_tokens(model.config, *shape, seed=i) for i, shape in enumerate(shapes)]


# The second process dies when the first one has written what it has: torchrun then stops that too.
DYING = """
import os, sys, time
from datetime import timedelta
from pathlib import Path
import torch.distributed as dist
from mudd_interp.analysis import sweep_over_ranks
from tests.unit.analysis import test_distributed as here

dist.init_process_group("gloo", timeout=timedelta(seconds=60))
rank, state = dist.get_rank(), sys.argv[1] + "/state"
dying = len(sys.argv) > 2

def die(*_):
    until = time.monotonic() + 50
    while not Path(state, "1-of-2").exists() and time.monotonic() < until:
        time.sleep(0.05)
    os._exit(3)

progress = die if dying and rank == 1 else None
model, batches = here.work(5)
results = sweep_over_ranks(model, batches, here.AVERAGES, progress, path=state)
results[0].save(f"{sys.argv[1]}/similarity.{rank}")
dist.destroy_process_group()
"""


def in_two_processes(folder, script, *arguments):
    (folder / "script.py").write_text(script)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    run = subprocess.run(
        [sys.executable, *command, folder / "script.py", folder, *arguments],
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    return run.returncode


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What two processes saved."""
    folder = tmp_path_factory.mktemp("ranks")
    assert in_two_processes(folder, SCRIPT) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("n_batches", CORPORA)
def test_two_processes_give_the_numbers_of_one(folder, n_batches):
    expected = sweep(*work(n_batches), ANALYSES)
    for (name, kind), one in zip(KINDS.items(), expected, strict=True):
        first, second = (kind.load(folder / f"{n_batches}.{name}.{rank}") for rank in (0, 1))
        assert first.frame.equals(second.frame)
        assert first.provenance == second.provenance == one.provenance
        numbers = [c for c in one.frame if one.frame[c].dtype == np.float64]
        # float64 sums, added in another order
        np.testing.assert_allclose(first.frame[numbers], one.frame[numbers], rtol=1e-12, atol=1e-14)
        labels = [c for c in one.frame if c not in numbers]
        assert first.frame[labels].equals(one.frame[labels])
        for name, array in arrays_of(one).items():
            if array.dtype == np.int64:
                assert np.array_equal(getattr(first, name), array)


def test_without_a_process_group_it_is_a_plain_sweep():
    model, batches = work(2)
    alone, merged = sweep(model, batches, ANALYSES), sweep_over_ranks(model, batches, ANALYSES)
    assert all(a.frame.equals(b.frame) for a, b in zip(alone, merged, strict=True))
    assert merge_over_ranks(alone) == alone
    with pytest.raises(ValueError, match="there are no batches"):
        sweep_over_ranks(model, [], ANALYSES)


@pytest.mark.slow
def test_a_process_that_dies_is_an_error_and_the_other_one_need_not_begin_anew(tmp_path):
    assert in_two_processes(tmp_path, DYING, "dying") != 0
    assert not list(tmp_path.glob("similarity.*"))
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["1-of-2"]
    assert in_two_processes(tmp_path, DYING) == 0
    (expected, *_) = sweep(*work(5), ANALYSES)
    for rank in (0, 1):
        found = LayerSimilarity.load(tmp_path / f"similarity.{rank}")
        assert found.provenance == expected.provenance
        np.testing.assert_allclose(found.frame["cosine"], expected.frame["cosine"], rtol=1e-12)
