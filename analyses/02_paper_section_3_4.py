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
# # Section 3.4 of the paper, on the bundled pair
#
# The paper looks inside MUDDPythia-2.8B and Pythia-2.8B. Here its questions are asked of `mudd-tiny`
# and `tfm-tiny`: twelve blocks, 3.5 million parameters, ten million tokens of Python source, one seed
# each. So an answer below is about these two models; it neither confirms nor refutes the paper.
# What can be checked here is that the questions have answers, and what they look like.

# %%
import kaleido
import plotly.io as pio

import mudd_interp as mi

pio.renderers.default = "plotly_mimetype+png"
kaleido.start_sync_server(mathjax=False)

pair = {"model": mi.load_model("mudd-tiny"), "baseline": mi.load_model("tfm-tiny")}
text = {"sequences": 64}  # of 256 tokens, held out

# %% [markdown]
# ## 1. Do the inputs of the blocks stay distinct? (Figure 6)
#
# **The paper:** in the Transformer the inputs of neighbouring blocks have a cosine above 0.97 late in
# the model; the four streams of MUDDPythia are more distinct, V most, down to about −0.5.

# %%
drawn = mi.draw("layer_similarity", **pair, **text)
drawn.figure.show()

# %%
cosine = drawn.frame.assign(curve=lambda t: t["stream"].where(t["model"] == "mudd-tiny", "plain"))
cosine = cosine.pivot(index="layer", columns="curve", values="cosine")[
    ["q", "k", "v", "r", "plain"]
]
late = cosine.loc[9:].mean()
lower = cosine[["q", "k", "v", "r"]].lt(cosine["plain"], axis=0).sum()
print("mean over blocks 9 to 11:", late.round(3).to_dict())
print(f"lower than in the Transformer at so many of {len(cosine)} blocks:", lower.to_dict())

# %% [markdown]
# **Here: in part.** Late in the model V is by far the most distinct stream, as in the paper. But no
# cosine comes near zero, K and Q are as alike as in the Transformer at the end, and in the first two
# blocks V changes least.

# %% [markdown]
# ## 2. Are more heads awake? (Figure 8)
#
# **The paper:** a head sleeps at a token when its largest weight falls on a sink; MUDDPythia's heads
# are awake about 2.4 times as often as Pythia's.

# %%
drawn = mi.draw("head_activity", **pair, **text)
drawn.figure.show()
active = drawn.frame.groupby("model")["active"].mean()
print(active.round(3).to_dict())

# %% [markdown]
# **Here: no.** Both models are awake nearly always, the Transformer a little more. Sinks come with
# size and with training: neither model has begun to need them, so there is nothing that the
# connections could free. The rule matters too; with other sinks the curves move together:

# %%
mi.draw("sink_sensitivity", **pair, **text).figure.show()

# %% [markdown]
# ## 3. What do the streams read? (Figures 12 and 13)
#
# **The paper:** the four streams differ, and in most layers V puts a large and variable weight on the
# output of the first block, $X_1$, not on the embedding.

# %%
drawn = mi.draw("dense_weights", **pair, **text)
drawn.figure.show()

# %%
weights = drawn.frame
distant = weights[(weights["source"] < weights["layer"]) & (weights["stream"] == "v")]
read = (distant["mean"].abs() * distant["source_norm"]).groupby(distant["source"]).mean()
print("V reads of distant outputs, weight x norm:", read.round(1).to_dict())

# %% [markdown]
# **Here: no, but nearly.** The streams differ. V does read one early output in many layers, and not
# the embedding; in this model it is $X_2$, the second block's output, and not $X_1$.

# %% [markdown]
# ## 4. What the paper does not ask
#
# Weights are not causes. `03_weight_contribution_cause` goes on from here.
#
# What sets these two models apart most is none of the three: it is how they repeat what they have
# seen.

# %%
drawn = mi.draw("in_context_loss", **pair, **text)
drawn.figure.show()
drawn = mi.draw("head_scores", **pair, **text, score="induction")
induction = drawn.frame.groupby("model")["induction"].max()
print("strongest induction head:", induction.round(3).to_dict())

# %%
assert late["v"] < late[["q", "k", "r", "plain"]].min()
assert lower["v"] >= 8
assert active["mudd-tiny"] < active["tfm-tiny"]
assert read.idxmax() == 2
assert induction["mudd-tiny"] > 3 * induction["tfm-tiny"]
