"""The activation cache, exact for models whose streams are weighted sums of all earlier outputs."""

from types import SimpleNamespace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.utilities.slice import Slice

from mudd_interp import axes
from mudd_interp.axes import Stream
from mudd_interp.model.components import ComponentCache, as_slice, weighted


class MUDDActivationCache(ComponentCache):
    """TransformerLens' cache, with its methods made exact for dense connections.

    Indexing (``cache["pattern", 3]``), ``to``, ``remove_batch_dim``, ``stack_activation`` and
    ``logit_attrs`` work as documented there. Where a method stacks components (``decompose_resid``,
    ``stack_head_results``, ``stack_neuron_results``, ``get_full_resid_decomposition``), each is
    multiplied by its total coefficient (:meth:`delta_coefficients`), so that the stack sums to the
    stream; in a plain Transformer all coefficients are one. What a head wrote as such is
    ``cache["result", l]``.

    These methods take a ``stream`` besides TransformerLens' arguments: which of the inputs of
    block ``layer`` is decomposed; without it ``hook_resid_pre``, the R stream. Sums hold for a
    forward pass in which no hook changed a stream itself.
    """

    def __init__(self, cache_dict: dict[str, Any], model: Any, has_batch_dim: bool = True):
        super().__init__(cache_dict, model, has_batch_dim)

    def apply_slice_to_batch_dim(self, batch_slice: Any) -> "MUDDActivationCache":
        """The cache of some sequences of the batch; same class."""
        sliced = super().apply_slice_to_batch_dim(
            batch_slice if isinstance(batch_slice, Slice) else Slice(batch_slice)
        )
        return type(self)(sliced.cache_dict, self.model, sliced.has_batch_dim)

    # --- Stacks of components -------------------------------------------------------------------

    def decompose_resid(
        self,
        layer: int | None = None,
        mlp_input: bool = False,
        mode: Literal["all", "mlp", "attn"] = "all",
        apply_ln: bool = False,
        pos_slice: Any = None,
        incl_embeds: bool = True,
        return_labels: bool = False,
        stream: Stream | None = None,
    ) -> Any:
        """What each attention and FFN layer, and the embedding, contribute to a stream.

        Args:
            layer: The block that reads the stream; ``None``, -1 or ``n_layers`` is the final norm.
            mlp_input: Decompose what the block's FFN reads: with the block's own attention, or in
                a parallel block its R stream.
            mode: ``"all"``, or one kind of layer.
            apply_ln: Divide by the scale of the norm that reads the stream, as it was.
            pos_slice: Positions, as TransformerLens slices them.
            incl_embeds: Whether the embedding is one of the components.
            return_labels: Also return their names (``"embed"``, ``"0_attn_out"``, ...).
            stream: Which of the block's inputs; ``None`` is R.

        Returns:
            ``[component *batch_and_pos d_model]``; with all components it sums to the stream.

        Raises:
            ValueError: If the stream does not exist or has no norm, ``apply_ln`` leaves open which
                norm is meant, or a hook that is needed was not kept.
        """
        place, pos = self._place(layer, stream, mlp_input), as_slice(pos_slice)
        incl_attn = mode != "mlp"
        incl_mlp = mode != "attn" and not self.model.cfg.attn_only
        names = [("embed", axes.EMBED, 0)] if incl_embeds else []
        for block in range(place.layer + 1):
            if incl_attn and (block < place.layer or self._reads_own_attention(place)):
                names.append((f"{block}_attn_out", axes.attn_out(block), 1 + 2 * block))
            if incl_mlp and block < place.layer:
                names.append((f"{block}_mlp_out", axes.mlp_out(block), 2 + 2 * block))
        coefficients = self._coefficients(place, pos, apply_ln)
        groups = [
            weighted(self.kept(hook, pos)[..., None, :], coefficients[write])
            for _, hook, write in names
        ]
        stack = self._stacked(groups, pos)
        if apply_ln:
            stack = self._normed(stack, layer, mlp_input, pos, stream)
        return (stack, [label for label, _, _ in names]) if return_labels else stack

    def accumulated_resid(
        self,
        layer: int | None = None,
        incl_mid: bool = False,
        apply_ln: bool = False,
        pos_slice: Any = None,
        mlp_input: bool = False,
        return_labels: bool = False,
        stream: Stream | None = None,
    ) -> Any:
        """A stream as it enters each block up to ``layer``; the last one enters the final norm.

        ``apply_ln`` norms each entry anew with the final norm or, for an earlier ``layer``, divides
        by the scale of the norm that reads the stream there. Other arguments and errors are those
        of :meth:`decompose_resid`; ``incl_mid`` adds ``hook_resid_mid``, which a parallel block
        does not have.
        """
        place, pos = self._place(layer, None if layer in (None, -1) else stream, mlp_input), None
        pos, n_layers = as_slice(pos_slice), self.model.cfg.n_layers
        entries: list[tuple[str, str]] = []
        for block in range(place.layer + 1):
            if block == n_layers:
                entries.append(("final_post", self._final_stream()))
                continue
            entries.append((f"{block}_pre", axes.stream_input(block, stream or "r")))
            if (incl_mid and block < place.layer) or (mlp_input and block == place.layer):
                entries.append((f"{block}_mid", axes.block(block, "hook_resid_mid")))
        stack = torch.stack([self.kept(hook, pos) for _, hook in entries])
        if apply_ln:
            final = place.layer == n_layers
            stack = self._normed(stack, layer, mlp_input, pos, None if final else stream, final)
        return (stack, [label for label, _ in entries]) if return_labels else stack

    def stack_head_results(
        self,
        layer: int | None = -1,
        return_labels: bool = False,
        incl_remainder: bool = False,
        pos_slice: Any = None,
        apply_ln: bool = False,
        stream: Stream | None = None,
    ) -> Any:
        """What each head of the blocks below ``layer`` contributes to a stream of that block.

        Labels are ``"L0H0"``, ...; the remainder is the rest of the stream. Other arguments and
        errors are those of :meth:`decompose_resid`.
        """
        place, pos = self._place(layer, stream), as_slice(pos_slice)
        coefficients = self._coefficients(place, pos, apply_ln)
        groups = [
            weighted(self._heads(block, pos), coefficients[1 + 2 * block])
            for block in range(place.layer)
        ]
        labels = [f"L{b}H{h}" for b in range(place.layer) for h in range(self.model.cfg.n_heads)]
        stack = self._stacked(groups, pos)
        if incl_remainder:
            stack = self._with_remainder(stack, self.kept(self._hook(place), pos), labels)
        if apply_ln:
            stack = self._normed(stack, layer, False, pos, stream)
        return (stack, labels) if return_labels else stack

    def stack_neuron_results(
        self,
        layer: int | None,
        pos_slice: Any = None,
        neuron_slice: Any = None,
        return_labels: bool = False,
        incl_remainder: bool = False,
        apply_ln: bool = False,
        project_output_onto: Tensor | None = None,
        mlp_input: bool = False,
        stream: Stream | None = None,
    ) -> Any:
        """What each neuron of the blocks below ``layer`` contributes to a stream of that block.

        Labels are ``"L0N0"``, ... with each block's own FFN width. With ``project_output_onto``
        (``[d_model]`` or ``[d_model out]``) the vectors are never made, only their products with
        it. Other arguments and errors are those of :meth:`decompose_resid`.
        """
        place, pos = self._place(layer, stream, mlp_input), as_slice(pos_slice)
        direction = self._direction(project_output_onto, place, stream, apply_ln, pos)
        coefficients = self._coefficients(place, pos, apply_ln)
        neurons = Slice.unwrap(neuron_slice)
        groups = [
            self._neurons(block, coefficients[2 + 2 * block], direction, pos, neurons)
            for block in range(place.layer)
        ]
        labels = self._neuron_labels(place.layer, neurons)
        stack = self._stacked(groups, pos, direction)
        if incl_remainder:
            rest = self.kept(self._hook(place), pos)
            rest = rest if direction is None else weighted(rest[..., None, :], None, direction)
            rest = rest if direction is None else rest[..., 0, :]
            stack = self._with_remainder(stack, rest, labels)
        if apply_ln and direction is None:
            stack = self._normed(stack, layer, mlp_input, pos, stream)
        return _answer(stack, labels, project_output_onto, return_labels)

    def get_full_resid_decomposition(
        self,
        layer: int | None = None,
        mlp_input: bool = False,
        expand_neurons: bool = True,
        apply_ln: bool = False,
        pos_slice: Any = None,
        return_labels: bool = False,
        project_output_onto: Tensor | None = None,
        stream: Stream | None = None,
    ) -> Any:
        """Every head, every neuron (or FFN layer), the embedding and the biases of a stream.

        In this order; the output biases of all blocks, each with its coefficient, are one row. It
        sums to the stream. Arguments and errors are those of :meth:`stack_neuron_results`.
        """
        place, pos = self._place(layer, stream, mlp_input), as_slice(pos_slice)
        direction = self._direction(project_output_onto, place, stream, apply_ln, pos)
        coefficients = self._coefficients(place, pos, apply_ln)
        below, incl_mlp = range(place.layer), not self.model.cfg.attn_only
        attending = range(place.layer + self._reads_own_attention(place))
        groups = [
            weighted(self._heads(b, pos), coefficients[1 + 2 * b], direction) for b in attending
        ]
        labels = [f"L{b}H{h}" for b in attending for h in range(self.model.cfg.n_heads)]
        if incl_mlp and expand_neurons:
            every = Slice(None)
            groups += [
                self._neurons(b, coefficients[2 + 2 * b], direction, pos, every) for b in below
            ]
            labels += self._neuron_labels(place.layer, every)
        elif incl_mlp:
            outs = [self.kept(axes.mlp_out(b), pos)[..., None, :] for b in below]
            groups += [
                weighted(out, coefficients[2 + 2 * b], direction) for b, out in enumerate(outs)
            ]
            labels += [f"{b}_mlp_out" for b in below]
        embed = self.kept(axes.EMBED, pos)
        bias = torch.zeros_like(embed)
        for b in attending:
            bias = bias + self.model.output_bias(b, "attn").detach() * coefficients[1 + 2 * b]
            if expand_neurons and incl_mlp and b < place.layer:
                bias = bias + self.model.output_bias(b, "mlp").detach() * coefficients[2 + 2 * b]
        groups += [
            weighted(embed[..., None, :], coefficients[0], direction),
            weighted(bias[..., None, :], None, direction),
        ]
        stack = self._stacked(groups, pos, direction)
        if apply_ln and direction is None:
            stack = self._normed(stack, layer, mlp_input, pos, stream)
        return _answer(stack, [*labels, "embed", "bias"], project_output_onto, return_labels)

    # --- Norms and the lens ---------------------------------------------------------------------

    def apply_ln_to_stack(
        self,
        residual_stack: Float[Tensor, "component *token d_model"],
        layer: int | None = None,
        mlp_input: bool = False,
        pos_slice: Any = None,
        batch_slice: Any = None,
        has_batch_dim: bool = True,
        recompute_ln: bool = False,
        stream: Stream | None = None,
    ) -> Float[Tensor, "component *token_out d_model"]:
        """A stack of components as the norm that reads their sum sees them: its scale, no gain.

        Args:
            residual_stack: The components; ``pos_slice`` has been applied to them already.
            layer: The block; ``None``, -1 or ``n_layers`` is the final norm.
            mlp_input: The norm before the block's FFN.
            pos_slice: Positions of the scale.
            batch_slice: Sequences of stack and scale.
            has_batch_dim: Whether the stack has a batch axis.
            recompute_ln: Norm each component by itself (final norm only; gain and bias included).
            stream: Which of the block's norms: q, k and v have one each where they are distinct.

        Raises:
            ValueError: If the norm is left open or does not exist, or its scale was not kept.
        """
        place = self._place(layer, stream, mlp_input)
        if place.layer == self.model.cfg.n_layers:
            if not recompute_ln:
                self._require(axes.FINAL_SCALE)
            return super().apply_ln_to_stack(
                residual_stack,
                place.layer,
                pos_slice=as_slice(pos_slice),
                batch_slice=as_slice(batch_slice),
                has_batch_dim=has_batch_dim,
                recompute_ln=recompute_ln,
            )
        if has_batch_dim:
            residual_stack = as_slice(batch_slice).apply(residual_stack, dim=1)
        scale = self.kept(self._scale(place, stream), as_slice(pos_slice))
        if self.has_batch_dim:
            scale = as_slice(batch_slice).apply(scale)
        return self._centred(residual_stack) / scale

    def logit_lens(self, **kwargs: Any) -> Any:
        """TransformerLens' logit lens on the R stream at each block, and on the final stream.

        Arguments and result are those of ``transformer_lens.tools.analysis.logit_lens``.
        """
        from transformer_lens.tools.analysis.logit_lens import logit_lens

        # The tool refuses models whose block outputs are no residual stream; it is given the
        # streams themselves, so what is left to it is the way from a stream to the logits.
        bridge = getattr(self.model, "bridge", None)
        names = ("cfg", "ln_final", "unembed", "W_U", "b_U", "to_single_token")
        readout = {name: getattr(self.model, name) for name in names}
        view = SimpleNamespace(**readout, adapter=getattr(bridge, "adapter", None))
        return logit_lens(view, cache=self, **kwargs)

    def _normed(
        self,
        stack: Float[Tensor, "component *token d_model"],
        layer: int | None,
        mlp_input: bool,
        pos: Slice,
        stream: Stream | None,
        recompute: bool = False,
    ) -> Float[Tensor, "component *token d_model"]:
        if self._norms_several(self._place(layer, stream, mlp_input)):
            return self._centred(stack)  # each scale is in the coefficients
        return self.apply_ln_to_stack(
            stack,
            layer,
            mlp_input,
            pos,
            has_batch_dim=self.has_batch_dim,
            recompute_ln=recompute,
            stream=stream,
        )


def _answer(
    stack: Float[Tensor, "component *token out"],
    labels: list[str],
    projection: Tensor | None,
    return_labels: bool,
) -> Any:
    """One column of a projection on a single direction has no axis of its own."""
    if projection is not None and projection.ndim == 1:
        stack = stack[..., 0]
    return (stack, labels) if return_labels else stack
