"""Scores and their intervals, worked by hand and held against the harness."""

import math

import numpy as np
import pytest
from lm_eval.api.metrics import mean_stderr

from mudd_interp.evaluation.scores import Answers, by_rule, difference, score


def answers(*sums: float, counts: list[float] | None = None) -> Answers:
    return Answers(np.array(sums), np.array(counts or [1.0] * len(sums)))


def test_an_accuracy_and_the_harness_standard_error():
    right = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0]
    found = score(answers(*right), list("abcdefg"))
    assert found.value == pytest.approx(5 / 7)
    assert found.stderr == pytest.approx(mean_stderr(right), rel=1e-12)
    assert found.low < found.value < found.high


def test_bits_per_byte_are_bits_over_bytes_of_all():
    found = score(answers(10.0, 2.0, counts=[5.0, 1.0]), ["a", "b"])
    assert found.value == 2.0
    assert (found.stderr, found.low, found.high) == (0.0, 2.0, 2.0)


def test_files_are_drawn_whole():
    """Items of one file are the same thing twice: the interval is wider than that of items."""
    right = [float(number % 2) for number in range(40) for _ in range(5)]
    of_files = score(answers(*right), [str(index // 5) for index in range(200)])
    of_items = score(answers(*right), [str(index) for index in range(200)])
    assert of_files.value == of_items.value == 0.5
    ratio = (of_files.high - of_files.low) / (of_items.high - of_items.low)
    assert ratio == pytest.approx(math.sqrt(5), rel=0.1)  # 1000 draws


def test_a_difference_is_of_pairs():
    """Two runs that differ in one item of a hundred: no noise of the others remains."""
    first = [float(number % 2) for number in range(100)]
    second = [*first[:-1], 0.0]
    found = difference(answers(*first), answers(*second), list(map(str, range(100))))
    assert found.value == pytest.approx(0.01)
    assert found.stderr == pytest.approx(0.01)
    assert found.low == 0.0
    assert (found.only_first, found.only_second) == (1, 0)


def test_only_answers_to_the_same_items_are_compared():
    with pytest.raises(ValueError, match="the same items"):
        difference(answers(1.0, 2.0), answers(1.0), ["a", "b"])
    texts = difference(answers(1.0, 2.5), answers(1.0, 2.0), ["a", "b"])
    assert texts.only_first is None  # nothing is right or wrong


def test_one_item_has_no_interval():
    found = score(answers(1.0), ["a"])
    assert math.isnan(found.stderr)
    assert math.isnan(found.low)


def test_rules_are_scored_as_runs_are():
    found = by_rule({"guess": [0.5, 0.0, 1.0, 0.5]}, list("abcd"))
    assert found["guess"].value == 0.5
