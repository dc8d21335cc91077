"""Held-out losses per file and their bootstrap interval, worked by hand."""

import math

import numpy as np
import pytest
import torch

from mudd_interp.training.evaluate import FileLosses, file_losses, paired_bootstrap
from mudd_interp.training.validation import Origin, ValidationPack


def losses(totals: list[float], tokens: list[int]) -> FileLosses:
    names = tuple(f"p: {i}.py" for i in range(len(totals)))
    return FileLosses(names, np.array(totals), np.array(tokens))


def test_losses_are_summed_per_file_by_hand():
    """Logits say: token 1 with probability 1/2, tokens 0 and 2 with 1/4 each."""
    tokens = torch.tensor([[0, 1, 1], [0, 2, 2], [1, 1, 2]])
    origins = tuple(Origin("p", "1", path, 0) for path in ("b.py", "a.py", "b.py"))
    row = torch.tensor([0.25, 0.5, 0.25]).log()
    found = file_losses(lambda t: row.expand(*t.shape, 3), ValidationPack(tokens, origins), batch=2)
    assert found.files == ("p: a.py", "p: b.py")
    assert found.tokens.tolist() == [2, 4]
    in_bits = found.totals / math.log(2)
    assert in_bits == pytest.approx([4.0, 5.0])  # a: 2+2; b: 1+1 and 1+2; float32 log-softmax
    assert found.mean == pytest.approx(1.5 * math.log(2))


def test_a_constant_difference_has_no_width():
    found = paired_bootstrap(losses([9.0, 18.0], [10, 20]), losses([10.0, 20.0], [10, 20]))
    assert (found.difference, found.low, found.high) == pytest.approx((-0.1, -0.1, -0.1))


def test_two_files_by_hand():
    """Two files of 10 tokens, differences 0 and -1: resamples give 0, -0.5, -1 at 1:2:1."""
    model, baseline = losses([10.0, 10.0], [10, 10]), losses([10.0, 20.0], [10, 10])
    found = paired_bootstrap(model, baseline)
    assert (found.difference, found.low, found.high) == (-0.5, -1.0, 0.0)
    middle = paired_bootstrap(model, baseline, confidence=0.4)  # inside the half that is -0.5
    assert (middle.low, middle.high) == (-0.5, -0.5)
    assert found.n_files == 2


def test_long_files_weigh_more():
    found = paired_bootstrap(losses([0.0, 90.0], [10, 90]), losses([10.0, 90.0], [10, 90]))
    assert found.difference == pytest.approx(-0.1)
    assert found.low == pytest.approx(-1.0)  # the short file drawn twice


def test_losses_of_different_files_are_refused():
    with pytest.raises(ValueError, match="same files, got 2 and 1 files"):
        paired_bootstrap(losses([1.0, 2.0], [1, 1]), losses([1.0], [1]))
