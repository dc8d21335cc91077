"""What the claims of the notebooks come to where there is nothing to find: saved in a folder.

    python analyses/controls.py [--sequences N] [--edges N] [--out FOLDER]

Five conditions: the models on the text, on the same tokens in another order, with random weights,
with those and a random dynamic part of the dense weights (which starts at zero), and with the dense
weights of each aggregate moved to other tokens. The defaults made `results/controls.csv`,
`edge_controls.csv` and `in_context_*.safetensors`, which the notebooks read.
"""

import argparse
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import mudd_interp as mi
from mudd_interp.analysis import (
    ablation_sweep,
    edge_sizes,
    head_scores,
    in_context_loss,
    rank_correlations,
    sweep,
    weight_contribution_cause,
)
from mudd_interp.data import Batches, bundled_batches, shuffled
from mudd_interp.files import csv_table, write_bytes

PAIR = ("mudd-tiny", "tfm-tiny")
Condition = tuple[str, Any, AbstractContextManager[Any], Batches]
"""Its name, the model, what is done to it during the run, and the text."""


def conditions(name: str, text: Batches) -> Iterator[Condition]:
    """A model as it is, and the controls that have a meaning for it."""
    model: Any = mi.load_model(name)
    yield "text", model, nullcontext(), text
    yield "shuffled tokens", model, nullcontext(), shuffled(text)
    torch.manual_seed(0)
    fresh = mi.HookedMUDDTransformer(model.config, tokenizer=model.tokenizer)
    yield "random weights", fresh, nullcontext(), text
    if len(model.wiring.streams) > 1:
        dense: Any = fresh.dense
        with torch.no_grad():
            for name, parameter in dense.named_parameters():
                if name.endswith("W_2"):
                    parameter.normal_(std=0.02)
        yield "random dense weights", fresh, nullcontext(), text
        yield "weights of other tokens", model, model.edited("shuffle * *<-*"), text


def numbers(model: Any, text: Batches) -> dict[str, float]:
    """What the claims of notebook 02 are about."""
    similarity, activity, weights = sweep(
        model, text, ["layer_similarity", "head_activity", "dense_weights"]
    )
    cosine: Any = similarity.frame
    late = cosine[cosine["layer"] >= 9].groupby("stream")["cosine"].mean()
    found = {"late_cosine_v": late.get("v", np.nan), "late_cosine_r": late["r"]}
    found["active"] = float(activity.layer_frame["active"].mean())
    if len(model.wiring.streams) > 1:
        frame: Any = weights.frame
        rows = frame[(frame["stream"] == "v") & (frame["source"] < frame["layer"])]
        read = (rows["mean"].abs() * rows["source_norm"]).groupby(rows["source"]).mean()
        found |= {"v_reads": int(read.idxmax()), "v_reads_by": float(read.max())}
    found["induction"] = head_scores(model).frame["induction"].max()
    context = in_context_loss(model, text)
    gain, low, high = context.score
    loss = context.loss_sum.sum() / context.count.sum()
    return {**found, "loss": loss, "gain": gain, "gain_low": low, "gain_high": high}


def edge_numbers(model: Any, text: Batches) -> dict[str, float]:
    """What the claims of notebook 03 are about."""
    effects = ablation_sweep(model, text)
    table: Any = weight_contribution_cause(edge_sizes(model, text), effects)
    newest = table["source"] == table["layer"] + 1
    size = table["loss"].abs()
    found = {
        "loss": effects.loss,
        "summed_effect": size.sum(),
        "distant_effect": size[~newest].sum(),
        "k 6<-5": table.set_index(["stream", "layer", "source"])["loss"]["k", 6, 5],
    }
    ranks: Any = rank_correlations(table[~newest]).set_index("stream").loc["all"]
    return found | ranks.drop("edges").to_dict()


def main() -> None:
    """Compute, keep and print."""
    parser = argparse.ArgumentParser(description="Compute the controls of the notebooks' claims.")
    parser.add_argument("--sequences", type=int, default=64)
    parser.add_argument("--edges", type=int, default=4, help="sequences of the edge sweeps")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    for name in PAIR:
        whole = in_context_loss(mi.load_model(name), bundled_batches())
        whole.save(given.out / f"in_context_{name}.safetensors")
        print(name, "early - late:", np.round(whole.score, 4))
    rows: list[dict[str, Any]] = []
    for name in PAIR:
        for condition, model, doing, text in conditions(name, bundled_batches(given.sequences)):
            with doing:
                rows.append({"model": name, "condition": condition, **numbers(model, text)})
            print(rows[-1])
    write_bytes(given.out / "controls.csv", csv_table(pd.DataFrame(rows)))
    rows = []
    for condition, model, doing, text in conditions(PAIR[0], bundled_batches(given.edges, 4)):
        with doing:
            rows.append({"condition": condition, **edge_numbers(model, text)})
        print(rows[-1])
    write_bytes(given.out / "edge_controls.csv", csv_table(pd.DataFrame(rows)))


if __name__ == "__main__":
    main()
