"""Attention rollout over the picture, beside what it takes for granted and what is so."""

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float64

from mudd_interp.analysis import AttentionRollout, PathCoefficients
from mudd_interp.viz.picture import Map, Panels, Picture, Scale, check_patches
from mudd_interp.viz.theme import BASELINE, MUDD, LineStyle, finish, source_line

_CHART = 300  # pixels


def rollout_figure(
    result: AttentionRollout,
    coefficients: PathCoefficients,
    picture: Picture,
    as_baseline: bool = False,
) -> go.Figure:
    """The mean row of the rollout, and the exact coefficients of all paths to the final norm.

    Rollout takes it that a layer passes its input on as it is: then the coefficient of the
    embedding, and of what each block wrote, is 1 at every patch. The second map and the bars show
    what it is.

    Args:
        result: Of one image.
        coefficients: Of the same image.
        picture: The image.
        as_baseline: Draw the bars in the colour of the baseline.

    Raises:
        ValueError: If the results are not of the picture's patches.
    """
    exact = coefficients.final
    for count in (len(result.mean_row), exact.shape[1]):
        check_patches(count, picture)
    low, high = min(1.0, float(exact[0].min())), max(1.0, float(exact[0].max()))
    panels = Panels(
        picture,
        [
            Map("rollout", result.mean_row),
            Map("exact, of the embedding", exact[0], 1),
        ],
        [
            Scale("rollout, share", 0.0, float(result.mean_row.max())),
            Scale("coefficient", low if low < high else 0.0, high),
        ],
        chart=_CHART,
    )
    names = ["embed", *(f"block {layer}" for layer in range(len(exact) - 1))]
    figure = panels.figure()
    figure.add_trace(_bars(exact, names, BASELINE if as_baseline else MUDD, panels))
    figure.add_trace(_assumed(names, panels))
    return finish(
        figure,
        f"Attention rollout of {result.provenance.model}: assumes a plain residual",
        "left: product over layers of ½ mean pattern + ½ identity (Abnar and Zuidema 2020), mean "
        "over patches, as the head pools; sums to one. It takes it that each layer passes its "
        "input on as it is, which with dense connections it does not. Right and below, exact: how "
        "much of what each component wrote is in the final stream, over all paths; 1 (dashed) in a "
        "plain Transformer; error bars: standard deviation over patches",
        source_line([result.provenance]),
        **panels.layout_with_chart(
            {"tickvals": list(range(len(names))), "ticktext": names, "showgrid": False},
            {"title": {"text": "coefficient, mean over patches"}, "zerolinecolor": "#888888"},
        ),
        showlegend=False,
    )


def _bars(
    exact: Float64[np.ndarray, "source pos"], names: list[str], style: LineStyle, panels: Panels
) -> go.Bar:
    return go.Bar(
        x=list(range(len(names))),
        y=exact.mean(1),
        error_y={"type": "data", "array": exact.std(1), "thickness": 1.2, "color": "#444444"},
        marker={"color": style.colour},
        hovertext=names,
        hovertemplate="%{hovertext}: %{y:.4f} ± %{error_y.array:.4f}<extra></extra>",
        name="coefficient",
        **panels.on_chart,
    )


def _assumed(names: list[str], panels: Panels) -> go.Scatter:
    return go.Scatter(
        x=[-0.5, len(names) - 0.5],
        y=[1, 1],
        mode="lines",
        line={"dash": "dash", "color": "#444444", "width": 1.2},
        hoverinfo="skip",
        **panels.on_chart,
    )
