"""The base and some adapters as one OpenVINO model, in which each sequence has its own adapter.

Sources: Llama as transformers computes it (modeling_llama.py); LoRA (Hu et al., arXiv 2106.09685);
adapters side by side in a batch as in Punica (Chen et al., arXiv 2310.18547), but densely: A and B
of all adapters are one pair of matrices, and between the two each token keeps the ranks of its own.

An engine that only knows token ids must carry which adapter that is. A prompt of lane n (0: the
base) begins with its first id + n * vocabulary, which also keeps cached prefixes of lanes apart.
All other tokens look the lane up in the KV cache, where one small attention beside the layers' own
keeps it. What is written here is what OpenVINO GenAI can turn into paged attention.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import Type
from openvino import opset13 as op
from openvino.op.util import Variable, VariableInfo

from proxy.backends.embedded.header import LANES
from proxy.backends.embedded.weights import (
    EMBEDDING,
    OUTPUT,
    OUTPUT_NORM,
    ROPE_FACTORS,
    Adapter,
    Base,
    Floats,
    WeightsError,
    read_adapter,
)

Node: TypeAlias = Any  # openvino.Node: the package has no types

MODEL = "openvino_model.xml"
"""Name of the file, beside which lies a .bin: as OpenVINO GenAI looks for it."""

_CERTAIN = 16.0
"""Of a query and a key that meet: exp(16 * 16 / 8), it outweighs 10^13 others."""


def write(base: Path, adapters: Sequence[Path], directory: Path) -> None:
    """The model as files in a directory; lane n of it is `adapters[n - 1]`, lane 0 the base.

    Raises WeightsError before anything is written where an adapter does not fit.
    """
    read = Base(base)
    updates = [read_adapter(path) for path in adapters]
    for update in updates:
        read.check_fit(update)
    ov.save_model(_Llama(read, updates).model(), directory / MODEL, compress_to_fp16=False)


class _Ranks(NamedTuple):
    """An adapter's factors of one linear among several: A (r, in), B (rows of all, r)."""

    lane: int
    a: Floats
    b: Floats


class _Llama:
    """The model while it is put together; a node is (batch, tokens, features) unless said."""

    def __init__(self, base: Base, adapters: Sequence[Adapter]) -> None:
        self._base = base
        self._adapters = adapters
        self._ids = _input("input_ids", [-1, -1], Type.i64)
        self._positions = _input("position_ids", [-1, -1], Type.i64)
        self._mask = _input("attention_mask", [-1, -1], Type.i64)
        self._beams = _input("beam_idx", [-1], Type.i32)
        self._batch = op.gather(op.shape_of(self._ids, "i64"), _ints(0), _ints(0))
        self._assigned: list[Node] = []
        self._visible = self._all_before()
        self._cos, self._sin = self._rotation()
        self._lane = op.divide(self._ids, _of(base.vocabulary, np.int64))
        self._open: dict[tuple[int, ...], Node] = {}
        self._lanes = self._remembered() if adapters else None

    def model(self) -> ov.Model:
        """The whole."""
        table = _stored(self._base.floats(EMBEDDING))
        own = op.subtract(self._ids, op.multiply(self._lane, _of(self._base.vocabulary, np.int64)))
        hidden = op.gather(table, op.convert(own, Type.i32), _of(0, np.int32))
        for layer in range(self._base.layers):
            hidden = op.add(hidden, self._attention(hidden, f"blk.{layer}."))
            hidden = op.add(hidden, self._feed_forward(hidden, f"blk.{layer}."))
        out = _stored(self._base.floats(OUTPUT)) if self._base.has(OUTPUT) else table
        logits = op.matmul(self._norm(hidden, OUTPUT_NORM), out, False, True)
        logits.output(0).get_tensor().set_names({"logits"})
        inputs = [self._ids, self._mask, self._positions, self._beams]
        return ov.Model([op.result(logits)], self._assigned, inputs, "llama")

    # ------------------------------------------------------------ a layer

    def _attention(self, hidden: Node, layer: str) -> Node:
        base = self._base
        parts = [f"{layer}attn_{part}.weight" for part in "qkv"]
        projected = self._linear(self._norm(hidden, f"{layer}attn_norm.weight"), parts)
        q, k, v = _split(projected, [base.shape(part)[0] for part in parts])
        attended = self._attended(
            self._rotated(_by_head(q, base.heads, base.head_size)),
            self._rotated(_by_head(k, base.kv_heads, base.head_size)),
            _by_head(v, base.kv_heads, base.head_size),
            layer,
        )
        return self._linear(attended, [f"{layer}attn_output.weight"])

    def _feed_forward(self, hidden: Node, layer: str) -> Node:
        parts = [f"{layer}ffn_{part}.weight" for part in ("gate", "up")]
        projected = self._linear(self._norm(hidden, f"{layer}ffn_norm.weight"), parts)
        gate, up = _split(projected, [self._base.shape(part)[0] for part in parts])
        return self._linear(op.multiply(op.swish(gate), up), [f"{layer}ffn_down.weight"])

    def _norm(self, hidden: Node, name: str) -> Node:
        """Root mean square; written as the plugin knows it."""
        square = op.reduce_mean(op.power(hidden, _of([[[2.0]]])), _of([-1], np.int32), True)
        root = op.sqrt(op.add(square, _of([[[self._base.epsilon]]])))
        weight = self._base.floats(name).reshape(1, 1, -1)
        return op.multiply(op.multiply(op.divide(_of([[[1.0]]]), root), hidden), _of(weight))

    # ------------------------------------------------------------ linears and their adapters

    def _linear(self, hidden: Node, names: Sequence[str]) -> Node:
        """Linears of the same input as one, with what the adapters add."""
        weight = np.concatenate([self._base.floats(name) for name in names])
        ranks = self._ranks(names)
        if ranks:
            down = _stored(np.concatenate([rank.a for rank in ranks]))
            lanes = tuple(rank.lane for rank in ranks for _ in rank.a)
            kept = op.multiply(op.matmul(hidden, down, False, True), self._opened(lanes))
            hidden = op.concat([hidden, kept], -1)
            weight = np.concatenate([weight, *(rank.b for rank in ranks)], axis=1)
        return op.matmul(hidden, _stored(weight), False, True)

    def _ranks(self, names: Sequence[str]) -> list[_Ranks]:
        """What each adapter adds to each of some linears, whose rows follow each other."""
        rows = [self._base.shape(name)[0] for name in names]
        found = []
        for name, first in zip(names, accumulate(rows, initial=0), strict=False):
            for lane, adapter in enumerate(self._adapters):
                if name in adapter.pairs:
                    a, b = adapter.pairs[name]
                    whole = np.zeros((sum(rows), len(a)), np.float32)
                    whole[first : first + len(b)] = adapter.scale * b
                    found.append(_Ranks(lane, a, whole))
        return found

    def _opened(self, lanes: tuple[int, ...]) -> Node:
        """1 for each rank of a token's own lane, 0 for the others' (batch, tokens, ranks)."""
        if lanes not in self._open:
            spread = np.arange(len(self._adapters)) == np.array(lanes)[:, None]
            self._open[lanes] = op.matmul(self._lanes, _of(spread), False, True)
        return self._open[lanes]

    def _remembered(self) -> Node:
        """1 for a sequence's lane, 0 for others (batch, tokens, adapters).

        The token that says it leaves it under a key that every token asks for.
        """
        rows = len(self._adapters) + 1
        key, query = np.zeros((rows, LANES)), np.zeros((rows, LANES))
        query[:, 0] = _CERTAIN
        key[1:, 0] = _CERTAIN
        tables = (query, key, np.eye(rows, LANES, -1))
        lane = op.convert(self._lane, Type.i32)
        said = (op.gather(_of(table), lane, _of(0, np.int32)) for table in tables)
        q, k, v = (_by_head(part, 1, LANES) for part in said)
        found = self._attended(q, k, v, "lane.")
        # Half precision and an 8-bit cache give nearly 0 and nearly 1.
        found = op.slice(found, _ints(0), _ints(rows - 1), _ints(1), _ints(2))
        return op.round(found, "HALF_TO_EVEN")

    # ------------------------------------------------------------ attention

    def _attended(self, q: Node, k: Node, v: Node, name: str) -> Node:
        """Attention over all so far of (batch, heads, tokens, size), as features again."""
        heads, kv_heads = (int(part.get_output_partial_shape(0)[1].get_length()) for part in (q, k))
        keys = self._repeated(self._cached(k, f"{name}key"), heads // kv_heads)
        values = self._repeated(self._cached(v, f"{name}value"), heads // kv_heads)
        attended = op.scaled_dot_product_attention(q, keys, values, self._visible)
        size = int(v.get_output_partial_shape(0)[3].get_length())
        return op.reshape(_swapped(attended), _ints(0, 0, heads * size), True)

    def _cached(self, now: Node, name: str) -> Node:
        _, heads, _, size = now.get_output_partial_shape(0)
        state = VariableInfo()
        state.data_shape = ov.PartialShape([-1, heads, -1, size])
        state.data_type = Type.f32
        state.variable_id = name
        variable = Variable(state)
        shape = op.concat([self._batch, _ints(heads.get_length(), 0, size.get_length())], 0)
        before = op.read_value(op.broadcast(_of(0.0), shape), variable)
        whole = op.concat([op.gather(before, self._beams, _of(0, np.int64)), now], 2)
        self._assigned.append(op.assign(whole, variable))
        return whole

    def _repeated(self, heads: Node, times: int) -> Node:
        """Each key-value head for the query heads that share it."""
        if times == 1:
            return heads
        _, count, _, size = (part for part in heads.get_output_partial_shape(0))
        shape = [count.get_length(), times, 0, size.get_length()]
        wide = op.broadcast(
            op.unsqueeze(heads, _of(2, np.int64)),
            op.concat([self._batch, *(_ints(number) for number in shape)], 0),
            broadcast_spec="BIDIRECTIONAL",
        )
        return op.reshape(wide, _ints(0, count.get_length() * times, -1, size.get_length()), True)

    def _all_before(self) -> Node:
        """What a token may look at; paged attention knows it by itself and drops this."""
        tokens, all_ = (
            op.squeeze(op.gather(op.shape_of(of, "i64"), _ints(1), _ints(0)), _ints(0))
            for of in (self._ids, self._mask)
        )
        zero, one = _of(0, np.int64), _of(1, np.int64)
        keys = op.unsqueeze(op.range(zero, all_, one, "i64"), _ints(0))
        rows = op.add(op.range(zero, tokens, one, "i64"), op.subtract(all_, tokens))
        causal = op.unsqueeze(op.less_equal(keys, op.unsqueeze(rows, _ints(1))), _ints(0, 1))
        real = op.unsqueeze(op.convert(self._mask, Type.boolean), _ints(1, 2))
        return op.select(op.logical_and(causal, real), _of(0.0), _of(-65504.0))

    def _rotation(self) -> tuple[Node, Node]:
        """Cosine and sine of each position (batch, 1, tokens, head size)."""
        size = self._base.head_size
        slow = self._base.rope_base ** (np.arange(0, size, 2, dtype=np.float32) / size)
        if self._base.has(ROPE_FACTORS):
            slow = slow * self._base.floats(ROPE_FACTORS)
        frequencies = op.broadcast(
            _of((1 / slow).reshape(1, -1, 1)),
            op.concat([self._batch, _ints(1, 1)], 0),
            broadcast_spec="BIDIRECTIONAL",
        )
        positions = op.convert(op.unsqueeze(self._positions, _of(1, np.int64)), Type.f32)
        half = op.transpose(op.matmul(frequencies, positions, False, False), _ints(0, 2, 1))
        angles = op.concat([half, half], -1)
        one = _of(1, np.int64)
        return op.unsqueeze(op.cos(angles), one), op.unsqueeze(op.sin(angles), one)

    def _rotated(self, heads: Node) -> Node:
        middle = self._base.head_size // 2
        upper = op.slice(heads, _ints(middle), _ints(2**63 - 1), _ints(1), _ints(3))
        lower = op.slice(heads, _ints(0), _ints(middle), _ints(1), _ints(3))
        turned = op.concat([op.multiply(upper, _of([[[[-1.0]]]])), lower], -1)
        return op.add(op.multiply(heads, self._cos), op.multiply(turned, self._sin))


def _input(name: str, shape: list[int], kind: Type) -> Node:
    node = op.parameter(shape, kind, name=name)
    node.output(0).get_tensor().set_names({name})
    return node


def _of(values: object, kind: npt.DTypeLike = np.float32) -> Node:
    return op.constant(np.asarray(values, kind))


def _ints(*values: int) -> Node:
    return _of(values, np.int64)


def _stored(weight: Floats) -> Node:
    """A weight in 16 bits, which the processor multiplies as they are (docs/LOG.md)."""
    half = weight.astype(np.float16)
    if not np.isfinite(half).all():
        raise WeightsError("a weight is too large for 16 bits")
    return op.convert(op.constant(half), Type.f32)


def _split(features: Node, sizes: Sequence[int]) -> list[Node]:
    parts = op.variadic_split(features, _of(-1, np.int64), _ints(*sizes))
    outputs: list[Node] = list(parts.outputs())
    return outputs


def _swapped(node: Node) -> Node:
    """Heads and tokens change places."""
    return op.transpose(node, _of([0, 2, 1, 3], np.int32))


def _by_head(features: Node, heads: int, size: int) -> Node:
    """(batch, heads, tokens, size)"""
    return _swapped(op.reshape(features, _ints(0, 0, heads, size), True))


REFUSED = 3
"""Exit status for weights that cannot be used; why is on stderr."""


def main(base: str, directory: str, *adapters: str) -> int:
    """`python -m proxy.backends.embedded.graph BASE DIRECTORY ADAPTER…`"""
    try:
        write(Path(base), [Path(adapter) for adapter in adapters], Path(directory))
    except WeightsError as error:
        print(error, file=sys.stderr)
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
