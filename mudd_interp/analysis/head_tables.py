"""The heads of one model side by side, and the activity of two models compared."""

import pandas as pd

from mudd_interp.analysis.detectors import HeadScores
from mudd_interp.analysis.entropy import HeadEntropy
from mudd_interp.analysis.heads import HeadActivity
from mudd_interp.analysis.result import Result

_IDENTITY = ("model", "revision", "digest", "dtype")


def heads_table(activity: HeadActivity, entropy: HeadEntropy, scores: HeadScores) -> pd.DataFrame:
    """Everything about the heads of one model in one table, to sort by any column.

    Args:
        activity: Share of tokens at which a head is active, 0..1.
        entropy: Mean entropy of a head's attention, nats.
        scores: Scores of the head types, 0..1; on repeated random tokens, unlike the other two.

    Returns:
        One row per head: ``layer``, ``head``, ``active``, ``entropy`` and the columns of
        ``HeadScores.frame``.

    Raises:
        ValueError: If the results are of different models.
    """
    for other in (entropy, scores):
        _check_one_model(activity, other)
    labels = ["layer", "head"]
    table = activity.frame.merge(entropy.frame, on=labels, validate="1:1")
    return table.merge(scores.frame, on=labels, validate="1:1")


def activity_difference(
    result: HeadActivity, baseline: HeadActivity, by: str = "layer"
) -> pd.DataFrame:
    """How much more often the heads of one model are active than those of another, by layer.

    Args:
        result: Of the model in question.
        baseline: Of the model that is subtracted: as deep, with as many first positions as sinks.
        by: ``"layer"``: the mean over the heads of a layer.

    Returns:
        Columns ``layer``, ``active``, ``baseline`` and ``difference`` (in -1..1).

    Raises:
        ValueError: If heads are to be compared one by one, the models are not equally deep, or
            the sink rules differ in the number of first positions.
    """
    if by != "layer":
        raise ValueError(
            f"a difference by {by!r} means nothing: head 3 of one model does not correspond to "
            "head 3 of another, their order is an accident of training. Compare layers "
            "(by='layer', the mean over heads)."
        )
    depths = len(result.active_count), len(baseline.active_count)
    if depths[0] != depths[1]:
        raise ValueError(
            f"the layers of a model with {depths[0]} and of one with {depths[1]} do not "
            "correspond: compare models of one depth."
        )
    positions = [each.provenance.options["first_positions"] for each in (result, baseline)]
    if positions[0] != positions[1]:
        raise ValueError(
            f"the sink rules differ ({positions[0]} and {positions[1]} first positions): compute "
            "both activities with one rule."
        )
    table = result.layer_frame.assign(baseline=baseline.layer_frame["active"])
    return table.assign(difference=table["active"] - table["baseline"])


def _check_one_model(one: Result, other: Result) -> None:
    for name in _IDENTITY:
        mine, theirs = getattr(one.provenance, name), getattr(other.provenance, name)
        if mine != theirs:
            raise ValueError(
                f"one table is of one model, and the {name} of the {type(one).__name__} and the "
                f"{type(other).__name__} differ: {mine!r} and {theirs!r}."
            )
