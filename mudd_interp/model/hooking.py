"""Hooks that are checked: unknown names are refused, and the cache is of our class."""

from collections.abc import Callable, Container, Generator, Iterable, Mapping, Sequence, Set
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor
from transformer_lens import HookedRootModule
from transformer_lens.utilities.slice import Slice

from mudd_interp.axes import position_axis, unknown_name
from mudd_interp.model.cache import MUDDActivationCache
from mudd_interp.model.named import NearestNames
from mudd_interp.model.points import hook_tables
from mudd_interp.protocol import Hook, NamesFilter, Observer

P = ParamSpec("P")
R = TypeVar("R")

STREAM_INPUTS = ("hook_q_input", "hook_k_input", "hook_v_input")


class Save(Observer):
    """Stores what it sees in a cache, detached and, if asked, moved, squeezed and sliced."""

    def __init__(
        self,
        cache: dict[str, Tensor],
        suffix: str = "",
        device: torch.device | str | None = None,
        remove_batch_dim: bool = False,
        pos_slice: Slice | None = None,
    ):
        super().__init__(self._store)
        self.cache, self.suffix, self.device = cache, suffix, device
        self.remove_batch_dim, self.pos_slice = remove_batch_dim, pos_slice

    def _store(self, tensor: Tensor, hook: Any) -> None:
        kept = tensor.detach()
        if self.device is not None:
            kept = kept.to(self.device)
        if self.remove_batch_dim and kept.shape[0] == 1:
            kept = kept[0]
        if self.pos_slice is not None:
            # A copy: a view would keep the whole activation alive.
            kept = self.pos_slice.apply(kept, dim=position_axis(hook.name)).clone()
        self.cache[hook.name + self.suffix] = kept


def require_single(given: Any) -> None:
    """Refuse a batch of several prompts where its axis is to be dropped."""
    several = isinstance(given, Tensor) and given.ndim == 2 and len(given) != 1
    if several or (isinstance(given, list) and len(given) != 1):
        raise ValueError(
            f"remove_batch_dim needs a batch of one, got {len(given)}: leave it out, or run the "
            "prompts one by one."
        )


def _counterparts(name: str, known: Container[str]) -> set[str]:
    """Hooks on the norm of one stream for that on the shared norm, and the other way round."""
    block, norm, rest = name.rpartition(".ln1")
    if not norm:
        return set()
    shared = rest.startswith(".")
    suffix = rest if shared else rest[2:]
    others = [f"ln1_{stream}" for stream in ("q", "k", "v")] if shared else ["ln1"]
    return {each for other in others if (each := f"{block}.{other}{suffix}") in known}


def eager_where_hooked(forward: Callable[P, R]) -> Callable[P, R]:
    """A forward pass that ``torch.compile`` leaves alone while something is hooked.

    A compiled pass takes no notice of hooks that come later, since torch does not guard on them
    (``torch._dynamo.config.skip_nnmodule_hook_guards``): here they count, at eager speed.
    """

    @wraps(forward)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling() and cast(CheckedHooks, args[0]).is_hooked:
            eager: Any = torch.compiler.disable
            return eager(forward)(*args, **kwargs)
        return forward(*args, **kwargs)

    return checked


class CheckedHooks(NearestNames, HookedRootModule):
    """What every model here does by running itself: hooks that are checked, and our cache."""

    def setup(self) -> None:
        """TransformerLens' dictionaries; and where torch keeps the hooks of every module."""
        super().setup()
        self.find_hook_tables()

    def find_hook_tables(self) -> None:
        """Remember where torch keeps the hooks of every module, for :attr:`is_hooked`."""
        self._hook_tables = [table for module in self.modules() for table in hook_tables(module)]

    @property
    def is_hooked(self) -> bool:
        """Whether a module of the model has a hook, TransformerLens' or torch's own."""
        return any(
            len(table) for table in self._hook_tables
        )  # lengths: a compiled pass guards on them

    @property
    def absent(self) -> Mapping[str, str]:
        """Names of hooks that other models have and this one has not, each with the reason."""
        return {}

    def on_request(self, name: str, incl_bwd: bool = False) -> bool:
        """Whether a hook is left out of a cache of everything, and fires only when named."""
        raise NotImplementedError

    def matching(self, names_filter: NamesFilter, incl_bwd: bool = False) -> list[str]:
        """The hook names that a filter selects.

        Raises:
            ValueError: If a name is unknown (the nearest are given) or a predicate selects none.
        """
        if names_filter is None:
            return [name for name in self.hook_dict if not self.on_request(name, incl_bwd)]
        if callable(names_filter):
            names = {name for name in self.hook_dict if names_filter(name)}
            if not names:
                raise ValueError("the filter selects no hook: see model.hook_dict for the names.")
            chosen = names - self._other_form(names, incl_bwd)
            return [name for name in self.hook_dict if name in chosen]
        names = [names_filter] if isinstance(names_filter, str) else list(names_filter)
        self.require(names)
        return names

    def _other_form(self, names: Set[str], incl_bwd: bool) -> set[str]:
        """Of hooks that stand for one another, those that do not run where both are selected.

        In a block with one norm ``ln1`` stands for ``ln1_q``, ``ln1_k`` and ``ln1_v``, and they for
        it where each stream has a gradient of its own: that of a stream passes by ``ln1``.
        """
        by_stream = incl_bwd and any(name.endswith(STREAM_INPUTS) for name in names)
        return {
            name
            for name in names
            if self.on_request(name, incl_bwd)
            and ((by_stream and ".ln1." in name) or names & _counterparts(name, self.hook_dict))
        }

    def require(self, names: Iterable[str]) -> None:
        """Refuse names that are not hooks of this model, with the reason if there is one."""
        for name in names:
            if name in self.absent:
                raise ValueError(f"this model has no hook `{name}`: {self.absent[name]}.")
            if name not in self.hook_dict:
                raise ValueError(unknown_name("hook", name, self.hook_dict))

    def get_caching_hooks(
        self,
        names_filter: NamesFilter = None,
        incl_bwd: bool = False,
        device: torch.device | str | None = None,
        remove_batch_dim: bool = False,
        cache: dict[str, Tensor] | None = None,
        pos_slice: Any = None,
    ) -> tuple[dict[str, Tensor], list[Any], list[Any]]:
        """Hooks that fill ``cache``; they are returned, not added (TransformerLens' method)."""
        cache = {} if cache is None else cache
        names = self.matching(names_filter, incl_bwd)
        save = partial(
            Save,
            cache,
            device=device,
            remove_batch_dim=remove_batch_dim,
            pos_slice=None if pos_slice is None else Slice.unwrap(pos_slice),
        )
        forward = [(name, save()) for name in names]
        backward = [(name, save(suffix="_grad")) for name in names] if incl_bwd else []
        return cache, forward, backward

    def run_with_cache(
        self,
        *model_args: Any,
        names_filter: NamesFilter = None,
        device: torch.device | str | None = None,
        remove_batch_dim: bool = False,
        incl_bwd: bool = False,
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
        pos_slice: Any = None,
        return_cache_object: bool = True,
        **model_kwargs: Any,
    ) -> tuple[Any, Any]:
        """Run the model and keep its activations.

        Where patterns or norm scales are kept, they are computed step by step instead of in fused
        kernels, and the last bits of the output differ from those of a pass without (see
        ``HookedMUDDTransformer.fused_kernels``, which makes them equal).

        Args:
            *model_args: Passed to :meth:`forward`, the input first.
            names_filter: Which hooks to keep: a name, a list of names, a predicate, or ``None`` for
                all but those computed on request (``attn.hook_result``; where a block has one
                norm, ``ln1_q``, ``ln1_k`` and ``ln1_v``, or with gradients ``ln1``). Caching all of
                a long prompt takes many times the memory of its logits: name what you need.
            device: Where to keep the activations; ``None`` leaves them where they are.
            remove_batch_dim: Drop the batch axis of a batch of one.
            incl_bwd: Also call ``backward`` on the output, a scalar such as the loss, and keep the
                gradients, as ``<name>_grad``.
            reset_hooks_end: Remove the hooks afterwards, also after an error.
            clear_contexts: Clear the hook points' contexts too.
            pos_slice: Keep these positions only.
            return_cache_object: Return a :class:`MUDDActivationCache`; else a plain dict.
            **model_kwargs: Passed to :meth:`forward`.

        Returns:
            The output of :meth:`forward`, and the cache.

        Raises:
            ValueError: If a name is unknown, with the nearest names.
        """
        if remove_batch_dim:
            require_single(model_args[0] if model_args else model_kwargs.get("input"))
        cache, fwd_hooks, bwd_hooks = self.get_caching_hooks(
            names_filter, incl_bwd, device, remove_batch_dim, pos_slice=pos_slice
        )
        with self.hooks(fwd_hooks, bwd_hooks, reset_hooks_end, clear_contexts):
            output = self(*model_args, **model_kwargs)
            if incl_bwd:
                output.backward()
        if not return_cache_object:
            return output, cache
        return output, MUDDActivationCache(cache, self, has_batch_dim=not remove_batch_dim)

    @contextmanager
    def hooks(
        self,
        fwd_hooks: Sequence[Hook] = (),
        bwd_hooks: Sequence[Hook] = (),
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
    ) -> Generator[Any]:
        """Hooks for the length of a ``with`` block.

        Args:
            fwd_hooks: Pairs of a name (or a predicate on names) and a function ``fn(tensor, hook)``
                that returns the tensor to go on with, or ``None``.
            bwd_hooks: The same for gradients.
            reset_hooks_end: Remove them at the end of the block, also after an error.
            clear_contexts: Clear the hook points' contexts too.

        Raises:
            ValueError: If a name is unknown, with the nearest names.
        """
        hooks = (list(fwd_hooks), list(bwd_hooks))
        with super().hooks(*hooks, reset_hooks_end, clear_contexts) as model:
            yield model

    def add_hook(self, name: Any, hook: Any, *args: Any, **kwargs: Any) -> None:
        """TransformerLens' ``add_hook``; refuses a name that is not a hook of this model."""
        for each in self._points(name, hook, args[0] if args else kwargs.get("dir", "fwd")):
            super().add_hook(each, hook, *args, **kwargs)

    def _enable_hook(self, name: Any, hook: Any, dir: Any) -> None:
        for each in self._points(name, hook, dir):
            super()._enable_hook(each, hook, dir)

    def _points(self, names: NamesFilter, hook: Any, dir: str) -> list[str]:
        """Where a hook goes; an edit of streams one by one goes to their norms one by one."""
        apart = dir == "bwd"
        if callable(names) and not isinstance(hook, Observer):
            inputs = [n for n in self.hook_dict if n.endswith(STREAM_INPUTS)]
            apart = apart or any(map(names, inputs))
        return self.matching(names, apart)
