# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Weight, contribution, cause
#
# The paper shows averages of weights. But a source already contains what it read itself, so a weight
# is not a contribution; and what comes later adapts to what is there, so a contribution is not a
# cause. Here the three stand side by side for every edge of `mudd-tiny`: stream × aggregation ×
# source.
#
# Cutting 321 edges on 64 sequences takes minutes. `edge_sweep.py` did it and saved the result.

# %%
import kaleido
import numpy as np
import pandas as pd
import plotly.io as pio
import torch

import mudd_interp as mi
from mudd_interp.analysis import (
    composition_table,
    head_scores,
    rank_correlations,
    spearman,
    weight_contribution_cause,
)

pio.renderers.default = "plotly_mimetype+png"
kaleido.start_sync_server(mathjax=False)

model = mi.load_model("mudd-tiny")
batches = mi.data.bundled_batches(64)
sweep = mi.analysis.AblationSweep.load("results/edge_sweep.safetensors")
sizes = mi.analysis.edge_sizes(model, batches)
estimates = mi.analysis.edge_attribution(model, batches)
table = weight_contribution_cause(sizes, sweep, estimates)
print(
    f"{len(table)} edges, {sweep.provenance.tokens:,} tokens, loss without edits {sweep.loss:.4f}"
)

# %% [markdown]
# ## What cutting an edge does
#
# The ten edges whose cut costs most, in nats per token, with 95% intervals (paired bootstrap over
# sequences). Weight: mean |weight|; contribution: mean norm of weight × source.

# %%
top = table.sort_values("loss", ascending=False).head(10)
columns = ["stream", "layer", "source", "weight", "contribution", "loss", "loss_low", "loss_high"]
top[columns].round(3)

# %%
mi.viz.edge_effects_figure(sweep).show()

# %% [markdown]
# Most edges could go: the interval of their effect includes zero, or the effect is small.

# %%
unsure = ((table["loss_low"] <= 0) & (table["loss_high"] >= 0)).mean()
small = (table["loss"].abs() < 0.001).mean()
helped = (table["loss_high"] < 0).sum()
newest = table["source"] == table["layer"] + 1
print(f"interval holds zero: {unsure:.0%} of edges; |effect| below 0.001 nats: {small:.0%}")
print(f"edges whose cut helps, with all of the interval below zero: {helped}")
print(
    f"share of the summed effects that the newest source has: "
    f"{table.loc[newest, 'loss'].abs().sum() / table['loss'].abs().sum():.0%}"
)

# %% [markdown]
# ## Does a large weight mean a large contribution, and a large contribution a large effect?

# %%
mi.viz.causes_figure(sizes, sweep).show()
ranks = rank_correlations(table).set_index("stream")
ranks.round(2)

# %% [markdown]
# Rank correlations over all edges are inflated by the obvious: the newest source matters most, and
# has the largest weights. Among the others, those that MUDD adds to a Transformer, the order of the
# weights says less:

# %%
distant = rank_correlations(table[~newest]).set_index("stream")
distant.round(2)

# %% [markdown]
# ## Can one backward pass stand in for the sweep?
#
# The first-order estimate of a cut is −weight × gradient, for all edges at once.

# %%
mi.viz.first_order_figure(sizes, sweep, estimates).show()

# %% [markdown]
# **No, not here.** The rank correlation of estimate and exact effect is 0.16 over all edges. Cutting a
# large edge is too far a step for a linear estimate, on stream R most of all; among the distant
# edges, which are smaller, it is 0.5 to 0.7 for Q, K and V and none for R.

# %% [markdown]
# ## What the strongest induction heads read
#
# Of the edges that do not read the newest source, two cost most: `r 0<-0`, by which the embedding goes
# past the first block, and `k 6<-5`. The second has a job that can be named. It feeds the keys of block 7
# with $X_5$, block 4's output; and block 7 has the strongest induction heads of this model.
# What wrote the query, the key and the value of the strongest one, and by which route?

# %%
baseline = mi.load_model("tfm-tiny")
pair = {"model": model, "baseline": baseline}
drawn = {
    of: mi.draw("head_composition", **pair, of=of, sequences=32) for of in ("model", "baseline")
}
for each in drawn.values():
    each.figure.show()

# %% [markdown]
# **In `mudd-tiny`** most of the key of head 7.2 was written by one head, 4.3, and nearly all of
# that comes through this one dense edge. The value is the token: the embedding, directly and
# through later outputs. The query comes from the FFN of block 3 and from the embedding, but is more
# spread out.
#
# **In `tfm-tiny`** the key of head 10.0 is a mixture. Its largest part comes from head 5.3, through all
# the outputs in between: there is no other way.
#
# 4.3 and 5.3 are the strongest previous-token heads of the two models: the textbook circuit. Is it also
# the cause? The induction score when edges or heads are cut, with other edges and heads as controls:


# %%
def induction(which, head, edits=()):
    with mi.edited(which, edits):
        frame = head_scores(which, n_sequences=8).frame
    return float(frame.set_index(["layer", "head"])["induction"][head])


for which in (model, baseline):
    best = head_scores(which, n_sequences=8).frame.nlargest(1, "previous_token").iloc[0]
    place, score = f"{best['layer']:.0f}.{best['head']:.0f}", best["previous_token"]
    print(f"{which.info.name}: strongest previous-token head {place}, {score:.3f}")

scores = {"as it is": induction(model, (7, 2))}
for edit in (*(f"cut k 6<-{j}" for j in range(8)), *(f"cut head 4.{h}" for h in range(4))):
    scores[edit] = induction(model, (7, 2), edit)
plain = {"as it is": induction(baseline, (10, 0))}
for edit in ("cut head 5.3", "cut head 4.0", "cut head 5.0", "cut head 8.0"):
    plain[edit] = induction(baseline, (10, 0), edit)
both = {"7.2 of mudd-tiny": pd.Series(scores), "10.0 of tfm-tiny": pd.Series(plain)}
pd.DataFrame(both).reindex([*scores, *(edit for edit in plain if edit not in scores)]).round(3)

# %% [markdown]
# **Yes.** Without `k 6<-5`, or without head 4.3, next to nothing is left of the induction head. Of the other
# edges and heads `k 6<-4` takes away a quarter, and most of them nothing. In `tfm-tiny` the cut of head
# 5.3 takes away more than half.
#
# A control for the shares: how much of head 4.3 is in the keys of the other heads of block 7, and in those
# of a model with random weights?

# %%
torch.manual_seed(0)
fresh = mi.HookedMUDDTransformer(model.config, tokenizer=model.tokenizer)
sample = next(iter(batches))[:1]
shares = composition_table(model, sample, "k").total[4, 3, 7]
random_shares = composition_table(fresh, sample, "k").total[:7, :, 7]
print("head 4.3 in the keys of heads 7.0 to 7.3:", shares.round(3).tolist())
print(
    f"random weights: the largest share of any head in any key: {np.abs(random_shares).max():.3f}"
)

# %% [markdown]
# ## Which edges carry a difference between two prompts
#
# The prompts of `01_tour`: an argument is called `name`, and in the corrupted prompt `value`. Each edge of
# the clean run carries, in turn, what it carries in the corrupted one. Control: a corrupted prompt that
# differs in a word that the answer does not depend on.

# %%
template = "class {}(Base):\n    def __init__(self, {}):\n        super().__init__("
patched = {
    word: mi.draw(
        "edge_patch",
        model=model,
        baseline=None,
        prompt=template.format("A", "name"),
        corrupted=template.format(*other),
        answer="name",
        against="value",
    )
    for word, other in (("argument", ("A", "value")), ("control", ("B", "name")))
}
patched["argument"].figure.show()
for word, each in patched.items():
    edges = each.frame.dropna(subset="source")
    largest = edges.loc[edges["change"].abs().idxmax()]
    place = f"{largest['stream']} {largest['layer']}<-{largest['source']}"
    print(f"{word}: largest change {largest['change']:+.3f} logits, at {place}")

# %% [markdown]
# ## How much of it is dynamic?
#
# All weights are set to their mean over the whole held-out text (the best that static connections
# could do without training), to their learned static part, or are moved to other tokens.

# %%
static = mi.analysis.AblationSweep.load("results/static_vs_dynamic.safetensors")
mi.viz.static_dynamic_figure(static).show()
whole = static.frame.set_index("edits")["loss"]
print(
    {
        edits: round(float(whole[edits]), 3)
        for edits in ("mean * *<-*", "static * *<-*", "shuffle * *<-*")
    }
)

# %% [markdown]
# ## Controls
#
# The same numbers where there is nothing to find. In a model with random weights every dense weight
# is one-hot, as the paper initialises it, so only the newest source can matter: by construction,
# which checks the sweep and says nothing about what was learned. And on shuffled tokens the edges
# that matter most on the text do less, and some even harm.

# %%
few = list(mi.data.bundled_batches(2, batch_size=2))
random_sweep = mi.analysis.ablation_sweep(fresh, few, ["cut v 7<-2", "cut v 7<-8"])
print("random weights:", random_sweep.frame[["edits", "kl"]].round(6).to_dict("records"))

strongest = [f"cut {s} {l}<-{j}" for s, l, j in top[["stream", "layer", "source"]].to_numpy()[:5]]
order = torch.randperm(few[0].shape[1], generator=torch.Generator().manual_seed(0))
for name, tokens in (("text", few[0]), ("shuffled tokens", few[0][:, order])):
    found = mi.analysis.ablation_sweep(model, [tokens], strongest)
    print(f"{name}: loss {found.loss:.2f}, effects", found.frame["loss"].round(3).tolist())

# %% [markdown]
# Rank correlations need a control too: what do they come to when the effects of the edges are
# permuted?

# %%
generator = np.random.default_rng(0)
for name, rows in (("all edges", table), ("distant edges", table[~newest])):
    size = rows["loss"].abs().to_numpy()
    dealt = [
        spearman(rows["contribution"].to_numpy(), generator.permutation(size)) for _ in range(500)
    ]
    print(f"{name}: by chance 95% of ρ lie within ±{np.quantile(np.abs(dealt), 0.95):.2f}")

# %% [markdown]
# So among the distant edges the correlation of weight and effect, 0.08, is **noise**; that of contribution
# and effect, 0.26, is not, though weak.
#
# And the whole sweep once more (4 sequences, `controls.py`): on shuffled tokens, in a model with
# random weights, in the same with a random dynamic part of its dense weights ($W_2$, normal, std
# 0.02), and in the trained model with its dense weights moved to other tokens before anything is
# cut. Effects are magnitudes of changes of loss in nats, summed over edges; rank correlations are
# of the distant edges.

# %%
controls = pd.read_csv("results/edge_controls.csv").set_index("condition")
controls.round(3)

# %% [markdown]
# - **Random weights**: distant edges have no effect at all, by construction.
# - **Random dense weights**: they have a twentieth of their summed effect, 0.10 nats, and `k 6<-5` has none.
#   How large it is depends on the scale that was chosen for $W_2$. Rank correlation of weight and contribution
#   is higher (0.72) than in the trained model: it needs no training. That of contribution and effect is
#   within chance.
# - **Shuffled tokens**: `k 6<-5` falls to a ninth of its effect, the newest sources to less than half.
#   The distant edges together do not fall. The loss is 9.6 there, and what a cut does to such a loss,
#   up or down, is noise: a sum of magnitudes is no evidence of a use.
# - **Weights of other tokens**: `k 6<-5` has nearly all of its effect. What this edge does, it does with a
#   weight that need not fit the token.

# %%
assert len(table) == 321
assert (top["loss_low"] > 0).all()
assert ranks.loc["all", "weight_contribution"] > ranks.loc["all", "contribution_effect"]
distant_effects = table[~newest].set_index(["stream", "layer", "source"])["loss"]
assert distant_effects.nlargest(2).index.tolist() == [("r", 0, 0), ("k", 6, 5)]
ours = drawn["model"].frame.set_index(["stream", "component"])
theirs = drawn["baseline"].frame.set_index(["stream", "component"])
assert ours.loc["k", "direct"].idxmax() == ours.loc["k", "total"].idxmax() == "head 4.3"
assert ours.loc[("k", "head 4.3"), "direct"] > 0.5
assert ours.loc["v", "total"].idxmax() == "embed"
assert theirs.loc["k", "total"].idxmax() == "head 5.3"
assert theirs.loc[("k", "head 5.3"), "direct"] == 0
circuit = ["cut k 6<-5", "cut head 4.3"]
assert max(scores[edit] for edit in circuit) < 0.1
assert min(value for edit, value in scores.items() if edit not in circuit) > 0.4
assert plain["cut head 5.3"] == min(plain.values()) < 0.5 * plain["as it is"]
largest_changes = {
    word: each.frame.dropna(subset="source")["change"].abs().max() for word, each in patched.items()
}
assert largest_changes["control"] < 0.5 * largest_changes["argument"]
assert controls.loc["random weights", "distant_effect"] == 0
random_dense = controls.loc["random dense weights"]
assert 0 < random_dense["distant_effect"] < 0.1 * controls.loc["text", "distant_effect"]
assert abs(random_dense["k 6<-5"]) < 0.001
assert random_dense["weight_contribution"] > controls.loc["text", "weight_contribution"]
assert abs(random_dense["contribution_effect"]) < 0.11
assert controls.loc["shuffled tokens", "k 6<-5"] < 0.2 * controls.loc["text", "k 6<-5"]
assert random_sweep.frame["kl"][0] == 0
assert random_sweep.frame["kl"][1] > 0
