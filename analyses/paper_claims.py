"""Does a pair of models show the paper's three claims? Numbers either way.

    python analyses/paper_claims.py [--sequences N] [--model NAME] [--baseline NAME]

1. Inputs of neighbouring blocks are more distinct than in the Transformer, in V most (Fig. 6).
2. Heads are active more often (Fig. 8).
3. V reads the first block's output, X_1, with large and variable weights (Figs. 12, 13).

One seed of each model was trained: what is printed is about these two models.
"""

import argparse

import pandas as pd

from mudd_interp.analysis import (
    DenseWeightsAnalysis,
    HeadActivityAnalysis,
    LayerSimilarityAnalysis,
)
from mudd_interp.request import Request
from mudd_interp.study import Need, Study

SIMILARITY, WEIGHTS = LayerSimilarityAnalysis(), DenseWeightsAnalysis()
ACTIVITY = HeadActivityAnalysis()


def cosines(study: Study) -> pd.DataFrame:
    """Mean cosine by layer: a column for each stream and one for the baseline."""
    frames = [
        study.result(role, SIMILARITY)
        .frame.assign(role=role)
        .query("role == 'model' or stream == 'r'")
        for role in study.roles
    ]
    table = pd.concat(frames)
    table["stream"] = table["stream"].where(table["role"] == "model", "baseline")
    by_layer = table.pivot(index="layer", columns="stream", values="cosine")
    return by_layer.reindex(columns=["q", "k", "v", "r", "baseline"])


def activity(study: Study) -> pd.DataFrame:
    """Share of active tokens by layer, a column for each model."""
    return pd.concat(
        {
            study.name(role): study.result(role, ACTIVITY).layer_frame.set_index("layer")["active"]
            for role in study.roles
        },
        axis=1,
    )


def reading(study: Study, stream: str) -> pd.DataFrame:
    """What a stream reads by source: mean over aggregations of |mean| and std, both rectified.

    Aggregations whose newest or second newest source this is are left out: X_1 is then not a
    distant output, and the comparison would be with the residual path.
    """
    frame = study.result("model", WEIGHTS).frame
    distant = frame[(frame["stream"] == stream) & (frame["source"] < frame["layer"])]
    rectified = pd.DataFrame(
        {
            "source": distant["source"],
            "mean": distant["mean"].abs() * distant["source_norm"],
            "std": distant["std"] * distant["source_norm"],
        }
    )
    return rectified.pivot_table(index="source", values=["mean", "std"], aggfunc="mean")


def main() -> None:
    """Compute and print."""
    parser = argparse.ArgumentParser(
        description="Does a pair of models show the paper's three claims?"
    )
    parser.add_argument("--model", default="mudd-tiny")
    parser.add_argument("--baseline", default="tfm-tiny")
    parser.add_argument("--sequences", type=int, default=None)
    given = parser.parse_args()
    request = Request(model=given.model, baseline=given.baseline, sequences=given.sequences)
    study = Study(request)
    analyses = (SIMILARITY, WEIGHTS, ACTIVITY)
    study.prepare([Need(role, each) for role in study.roles for each in analyses])
    print(f"{study.provenance('model').tokens:,} tokens each\n")

    table = cosines(study)
    print("1. Mean cosine of the inputs of neighbouring blocks, by layer")
    print(table.round(3).to_string())
    lower = table[["q", "k", "v", "r"]].lt(table["baseline"], axis=0).sum()
    print(f"\nmean over layers:\n{table.mean().round(3).to_string()}")
    print(f"layers at which it is lower than in the baseline, of {len(table)}: {lower.to_dict()}\n")

    table = activity(study)
    print("2. Active share of tokens, mean over heads, by layer")
    print(table.round(3).to_string())
    print(f"\nmean over layers:\n{table.mean().round(3).to_string()}\n")

    print("3. What each stream reads of distant outputs: |mean| and std, times the source's norm,")
    print(
        "   averaged over the aggregations for which the source is neither newest nor second newest"
    )
    for stream in study.models["model"].wiring.streams:
        print(f"\n{stream}:\n{reading(study, stream).T.round(3).to_string()}")


if __name__ == "__main__":
    main()
