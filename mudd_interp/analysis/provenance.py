"""Where a result comes from: the model, the tokens it saw, and the options of the analysis."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePath
from typing import Any, Literal

import mudd_interp
from mudd_interp.files import LARGEST
from mudd_interp.protocol import Front, HookedModel, Inputs
from mudd_interp.schema import validated

_DIGESTS = 2**256
_SHA256 = re.compile("[0-9a-f]{64}")
_MUST_AGREE = ("model", "revision", "digest", "dtype", "options", "version", "reads")


@dataclass
class TokensSeen:
    """A running account of the tokens of a sweep, or of what else a model's front reads.

    The digest is the sum of the sha256 of every sequence's ids, modulo 2^256: the same sequences
    give the same digest, whatever their order, batches and processes.

    Attributes:
        front: What reads them.
        sequences: How many sequences were seen.
        tokens: How many tokens, or positions, these have in all.
        digest: See above.
    """

    front: Front
    sequences: int = 0
    tokens: int = 0
    digest: int = 0

    def add(self, batch: Inputs) -> None:
        """Count one batch."""
        self.sequences += len(batch)
        self.tokens += len(batch) * self.front.positions(batch)
        for content in self.front.contents(batch):
            self.digest += int.from_bytes(hashlib.sha256(content).digest())
        self.digest %= _DIGESTS


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What a result was computed from.

    Attributes:
        model: The name or path that the model was loaded by; only the last part of an absolute
            path.
        revision: Its hub revision, or ``None``.
        digest: sha256 over its configuration and weights, or ``None`` where unknown (random
            weights).
        dtype: Precision of its weights, such as ``"float32"``.
        data: What the tokens are, in words; several where results were merged.
        sequences: Number of sequences seen.
        tokens: Number of tokens seen.
        token_digest: See :class:`TokensSeen`, hexadecimal.
        options: Options of the analysis, JSON-ready.
        version: Version of this library.
        reads: What a sequence is: of ``"tokens"``, or ``"images"``, whose patches count as tokens.
        rows: Which read each row of a table of weights is of, in the model's own labels, where its
            sublayers read one by one; else empty: row ``i`` is aggregation ``i``.
        sources: Which write each source is; else empty: source ``j`` is X_j.
    """

    model: str
    revision: str | None
    digest: str | None
    dtype: str
    data: tuple[str, ...]
    sequences: int
    tokens: int
    token_digest: str
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    version: str
    reads: Literal["tokens", "images"] = "tokens"
    rows: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    def merge(self, other: "Provenance") -> "Provenance":
        """The provenance of both results together.

        Raises:
            ValueError: If they are of another model, precision, options or library version.
        """
        for name in _MUST_AGREE:
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise ValueError(
                    f"cannot merge results whose {name} differs: {mine!r} here, {theirs!r} there. "
                    "Merge only results of one model, computed in one way."
                )
        digest = int(self.token_digest, 16) + int(other.token_digest, 16)
        return replace(
            self,
            data=tuple(dict.fromkeys([*self.data, *other.data])),
            sequences=self.sequences + other.sequences,
            tokens=self.tokens + other.tokens,
            token_digest=f"{digest % _DIGESTS:064x}",
        )

    @property
    def text(self) -> dict[str, Any]:
        """What was seen, and how much of it: JSON-ready."""
        return {
            "data": list(self.data),
            "sequences": self.sequences,
            "tokens": self.tokens,
            "token_digest": self.token_digest,
        }

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready copy; :meth:`from_dict` reads it back.

        Tokens go without saying, and labels are left out if empty.
        """
        values = {**asdict(self), "data": list(self.data), "options": dict(self.options)}
        if self.reads == "tokens":
            del values["reads"]
        for name in ("rows", "sources"):
            values[name] = list(values[name])
            if not values[name]:
                del values[name]
        return values

    @classmethod
    def from_dict(cls, values: Any, what: str = "the provenance") -> "Provenance":
        """Read what :meth:`to_dict` wrote.

        Args:
            values: What was read.
            what: What it is or where it is from, for the message.

        Raises:
            ValueError: If a field is missing, unknown, of another type or out of range.
        """
        found: Provenance = validated(cls, values, what)
        for name in ("sequences", "tokens"):
            if not 1 <= getattr(found, name) < LARGEST:
                raise ValueError(f"{what} has {getattr(found, name)} {name}: expected at least 1.")
        if not _SHA256.fullmatch(found.token_digest):
            raise ValueError(f"{what} has no token_digest of 64 hexadecimal digits.")
        return found


def model_name(model: HookedModel) -> str:
    """What a model is called beside its numbers; where its folder is does not matter there."""
    path = PurePath(model.info.name)
    name = path.name if path.is_absolute() else model.info.name
    return name.encode("utf-8", "backslashreplace").decode()  # of a folder whose name is not UTF-8


def provenance(
    model: HookedModel, data: str, seen: TokensSeen, options: Mapping[str, Any]
) -> Provenance:
    """The provenance of an analysis of a model on tokens."""
    return Provenance(
        model=model_name(model),
        revision=model.info.revision,
        digest=model.info.digest,
        dtype=str(model.cfg.dtype).removeprefix("torch."),
        data=(data,),
        sequences=seen.sequences,
        tokens=seen.tokens,
        token_digest=f"{seen.digest:064x}",
        options=options,
        version=mudd_interp.__version__,
        reads="images" if "images" in model.traits else "tokens",
        **_labels(model),
    )


def _labels(model: HookedModel) -> dict[str, tuple[str, ...]]:
    if "states" in model.traits:
        return {}
    wiring = model.wiring
    rows = {read.row: read.label.removesuffix(f".{read.stream}") for read in wiring.rows}
    return {
        "rows": tuple(rows[row] for row in sorted(rows)),
        "sources": tuple(write.label for write in wiring.sources),
    }
