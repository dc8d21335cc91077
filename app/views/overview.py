"""Overview."""

from typing import Any

import pandas as pd
import streamlit as st

import charts
import frame
import state
from mudd_interp.inspection import describe_model


def summary(found: dict[str, Any]) -> None:
    """A model in a few lines: what it is, what it learned from, whether it is sound."""
    shape, streams = found["shape"], len(found["streams"])
    heads = shape.get("n_heads")  # not of every bridged model: layers may differ
    connections = (
        "plain residual"
        if found["dense"] == "none"
        else f"{found['dense']} dense connections, {streams} input stream{'s'[: streams > 1]}"
    )
    facts = [
        f"{found['parameters']['total']:,} parameters",
        f"{shape['n_layers']} blocks of width {shape['d_model']}"
        + (f", {heads} heads each" if isinstance(heads, int) else ""),
        connections,
        *(f"{name}: {value}" for name, value in found["training"].items()),
        f"{len(found['checks'])} checks when it was loaded, all passed",
    ]
    st.header(state.plain(found["name"]), anchor=False)
    st.caption("  \n".join(map(state.plain, facts)))


study = frame.open_page(
    "What are these two models?",
    "What each of them is, what it expects after the chosen token, and what every token of the "
    "prompt cost it.",
    "Loss is −log of the probability that a model gave to the actual next token, in nats; the "
    "first token of a prompt is not predicted.",
    scope=False,
)
described = {role: describe_model(model) for role, model in study.models.items()}
for column, each in zip(st.columns(len(described)), described.values(), strict=True):
    with column:
        summary(each)
with st.expander("Shapes, parameters of each part, and checks"):
    rows = {
        role: {"name": each["name"], "digest": (each["digest"] or "none")[:12]}
        | {"dense weights": each["dense"], "streams": ", ".join(each["streams"])}
        | each["shape"]
        | {f"parameters: {name}": count for name, count in each["parameters"].items()}
        | {f"parameters: {name}": f"tied, counted as {of}" for name, of in each["tied"].items()}
        | each["training"]
        for role, each in described.items()
    }
    st.dataframe(pd.DataFrame(rows).dropna(how="all").fillna("").astype(str))
    for each in described.values():
        st.text(f"{each['name']}\n" + "\n".join(each["checks"]))
st.header("What they make of this prompt", anchor=False)
charts.chart("next_tokens")
charts.chart("token_losses")
