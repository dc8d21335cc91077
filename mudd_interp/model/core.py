"""A hooked Transformer, whatever it reads and whatever it predicts."""

from contextlib import AbstractContextManager
from typing import Any

from jaxtyping import Float
from torch import Tensor
from transformer_lens import FactoredMatrix

from mudd_interp.edits import Edits, Means, edited
from mudd_interp.model.hooking import CheckedHooks
from mudd_interp.model.live_config import ConfigView
from mudd_interp.model.parts import forwarded
from mudd_interp.model.stacked import Weights
from mudd_interp.model.switches import HookSwitches
from mudd_interp.model.task import Task
from mudd_interp.protocol import Front, ModelInfo, Trait
from mudd_interp.wiring import Wiring


class HookedCore(CheckedHooks):
    """Blocks with hooks, and a view of their weights under TransformerLens' names.

    Attributes:
        info: Name, revision and digest, and what was checked.
    """

    info: ModelInfo

    @property
    def cfg(self) -> ConfigView:
        """The configuration under TransformerLens' names, with the present device and dtype."""
        raise NotImplementedError

    @property
    def wiring(self) -> Wiring:
        """How much of each earlier write each of its reads takes."""
        raise NotImplementedError

    @property
    def front(self) -> Front:
        """What it reads."""
        raise NotImplementedError

    @property
    def task(self) -> Task:
        """What it is for."""
        raise NotImplementedError

    @property
    def traits(self) -> frozenset[Trait]:
        """What it is, of what not every model is."""
        raise NotImplementedError

    def edited(self, edits: Edits, means: Means | None = None) -> AbstractContextManager[Any]:
        """The model with edits, for the length of a ``with`` block: ``mudd_interp.edited``."""
        return edited(self, edits, means)

    @property
    def tokenizer(self) -> Any:
        """What turns text into tokens; ``None`` where no text is read."""
        return None

    @property
    def weights(self) -> Weights:
        """The weights of the blocks; methods and properties below are by way of it."""
        raise NotImplementedError

    @property
    def switches(self) -> HookSwitches:
        """TransformerLens' switches for hooks."""
        return HookSwitches(self.require, self.cfg.n_layers)

    set_use_attn_result = forwarded("switches", HookSwitches.set_use_attn_result)
    set_use_split_qkv_input = forwarded("switches", HookSwitches.set_use_split_qkv_input)
    set_use_attn_in = forwarded("switches", HookSwitches.set_use_attn_in)
    set_use_hook_mlp_in = forwarded("switches", HookSwitches.set_use_hook_mlp_in)

    all_composition_scores = forwarded("weights", Weights.all_composition_scores)
    tl_parameters = forwarded("weights", Weights.tl_parameters)
    get_params = forwarded("weights", Weights.get_params)
    tl_named_parameters = forwarded("weights", Weights.tl_named_parameters)
    output_bias = forwarded("weights", Weights.output_bias)
    norm_gain = forwarded("weights", Weights.norm_gain)
    accumulated_bias = forwarded("weights", Weights.accumulated_bias)

    @property
    def n_params_total(self) -> int:
        """How many numbers the model computes with, tied ones counted once."""
        return self.weights.count()

    @property
    def W_Q(self) -> Float[Tensor, "layer head d_model d_head"]:  # noqa: N802 (the field's name)
        """The query weights of every block."""
        return self.weights.stacked("attn", "W_Q")

    @property
    def W_K(self) -> Float[Tensor, "layer kv_head d_model d_head"]:  # noqa: N802 (the field's name)
        """The key weights of every block, one for each head of keys and values."""
        return self.weights.stacked("attn", "W_K")

    @property
    def W_V(self) -> Float[Tensor, "layer kv_head d_model d_head"]:  # noqa: N802 (the field's name)
        """The value weights of every block, one for each head of keys and values."""
        return self.weights.stacked("attn", "W_V")

    @property
    def W_O(self) -> Float[Tensor, "layer head d_head d_model"]:  # noqa: N802 (the field's name)
        """The output weights of every block."""
        return self.weights.stacked("attn", "W_O")

    @property
    def W_in(self) -> Float[Tensor, "layer d_model d_mlp"]:  # noqa: N802 (the field's name)
        """The FFN's input weights of every block.

        Raises:
            ValueError: If blocks have FFNs of different widths.
        """
        return self.weights.stacked("mlp", "W_in")

    @property
    def W_gate(self) -> Float[Tensor, "layer d_model d_mlp"] | None:  # noqa: N802 (the field's name)
        """The FFN's gate weights, ``None`` without gates; errors are those of ``W_in``."""
        return self.weights.gates()

    @property
    def W_out(self) -> Float[Tensor, "layer d_mlp d_model"]:  # noqa: N802 (the field's name)
        """The FFN's output weights of every block; errors are those of ``W_in``."""
        return self.weights.stacked("mlp", "W_out")

    @property
    def b_Q(self) -> Float[Tensor, "layer head d_head"]:  # noqa: N802 (the field's name)
        """The query biases of every block; zeros where there are none."""
        return self.weights.biases("b_Q")

    @property
    def b_K(self) -> Float[Tensor, "layer kv_head d_head"]:  # noqa: N802 (the field's name)
        """The key biases of every block; zeros where there are none."""
        return self.weights.biases("b_K")

    @property
    def b_V(self) -> Float[Tensor, "layer kv_head d_head"]:  # noqa: N802 (the field's name)
        """The value biases of every block; zeros where there are none."""
        return self.weights.biases("b_V")

    @property
    def b_O(self) -> Float[Tensor, "layer d_model"]:  # noqa: N802 (the field's name)
        """The attention's output biases of every block; zeros where there are none."""
        return self.weights.biases("b_O")

    @property
    def b_in(self) -> Float[Tensor, "layer d_mlp"]:
        """The FFN's input biases; zeros where there are none. Errors are those of ``W_in``."""
        return self.weights.biases("b_in")

    @property
    def b_out(self) -> Float[Tensor, "layer d_model"]:
        """The FFN's output biases of every block; zeros where there are none."""
        return self.weights.biases("b_out")

    @property
    def QK(self) -> FactoredMatrix:  # noqa: N802 (the field's name)
        """``W_Q W_K^T`` of every head, ``[layer head d_model d_model]``, in factors."""
        return self.weights.query_key()

    @property
    def OV(self) -> FactoredMatrix:  # noqa: N802 (the field's name)
        """``W_V W_O`` of every head, ``[layer head d_model d_model]``, in factors."""
        return self.weights.output_value()

    @property
    def all_head_labels(self) -> list[str]:
        """``"L0H0"``, ``"L0H1"``, ... of every head."""
        return self.weights.head_labels()

    @property
    def attn_head_labels(self) -> list[str]:
        """The same: every block has attention."""
        return self.all_head_labels
