"""How much of what each component wrote is in each stream, over all paths."""

import plotly.graph_objects as go

from mudd_interp.analysis import PathCoefficients, rectify
from mudd_interp.viz.theme import ROBUST_QUANTILE, finish, robust_limit, shown, source_line
from mudd_interp.viz.triangles import MARGIN, scale, triangles


def path_coefficients_figure(
    result: PathCoefficients, position: int, rectified: bool = False, limit: float | None = None
) -> go.Figure:
    """A triangle for each stream: the total coefficient of each component at one token.

    Rows are aggregations from the bottom up; column 0 is the embedding, and column ``l + 1`` what
    attention and FFN of block ``l`` wrote. In a plain Transformer all coefficients are one.

    Args:
        result: Of one sequence.
        position: The token.
        rectified: Multiply each by the norm of what the component wrote at this token.
        limit: The end of the colour scale, symmetric around 0; ``None`` takes a quantile of the
            non-zero magnitudes at this token.

    Raises:
        ValueError: If the sequence has no such position.
    """
    frame = result.frame_at(position)
    frame = rectify(frame) if rectified else frame
    end = robust_limit(frame["coefficient"].to_numpy()) if limit is None else limit
    stated = "a common scale" if limit is not None else f"{ROBUST_QUANTILE:.0%} of non-zero values"
    named = bool(result.provenance.rows)
    figure = triangles(frame, result.streams, ["coefficient"], of=result.provenance)
    if not named:
        figure.for_each_xaxis(
            lambda axis: axis.update(title="written by: 0 embedding, j block j − 1"),
            selector=lambda axis: bool(axis.title.text),
        )
    unit = "coefficient × norm of what was written" if rectified else "coefficient, dimensionless"
    return finish(
        figure,
        f"Path coefficients of {result.provenance.model} at token {position} "
        f"“{shown(result.tokens[position])}”{', rectified' if rectified else ''}",
        f"{unit}: the weights of all paths from a component to a stream, summed; "
        f"{'' if named else 'layer i feeds block i + 1; '}colours end at ±{end:.3g} ({stated})",
        source_line([result.provenance]),
        coloraxis=scale(end, "coefficient × norm" if rectified else "coefficient"),
        margin=MARGIN,
    )
