"""The JSON exports of RustGPT-Chinese as an LLM.

Both generations are read: 256/512/128 with 2 blocks and 512/1024/256 with 4; and so is any other
shape that the same names describe. What the file says is checked; what it does not say (the
positions, ReLU, the causal scale, that there is no final norm) is the graph RustGPT.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from cgpt.errors import ConfigError, DataError, Phrase, as_reason, shown
from cgpt.fileio.file_errors import damaged, foreign, other_version
from cgpt.fileio.file_kind import is_rustgpt_json
from cgpt.fileio.open_file import Job, Location, OpenFile, in_parallel
from cgpt.fileio.strict_json import Scan, Span, check_object, parse_json, read_floats
from cgpt.language_model import LanguageModel
from cgpt.models.rustgpt import RustGPT, RustGPTConfig
from cgpt.nn.arrays import Floats
from cgpt.optim.adamw import LEAST_EPS, AdamW
from cgpt.tokenizers.rustgpt import NEVER, SPECIAL, jieba_scores
from cgpt.tokenizers.tokenizer import RustTokenizer
from cgpt.validation import is_int, is_number

VERSION = 1
_DATA = rb"[a-z][a-z0-9_]{0,40}_data"
_HEADS = 8  # where an export does not say
_FORGETS = 50_000  # steps after which Adam's v of one gradient may be 0


class Tensor(NamedTuple):
    """An array of the file and where it goes: `rows` of a parameter's first dimension.

    name     in the file, for messages
    numbers  where they lie; shape: as the file has them; adam: its optimizer's object
    """

    name: str
    numbers: Span
    shape: list[int]
    adam: dict[str, Any]
    parameter: str
    rows: slice


def load(path: Location) -> LanguageModel:
    """The model of an export, with its words.

    Both generations of the format become the graph RustGPT. Adam's state comes along where it can
    resume exactly: where all arrays have the same settings and number of steps; else `optimizer` is
    None.
    """
    with OpenFile(path) as source:
        if not is_rustgpt_json(source.head):
            raise foreign(path, "no JSON export of RustGPT-Chinese", "name one, or a cgpt model")
        return _Export(source).build()


def looks_whole(file: OpenFile) -> bool:
    """Whether an export ends like a whole one."""
    return file.read(file.size - 16, 16).rstrip().endswith(b"}")


class _Export:
    """An open export: its text is parsed, its numbers are `Span`s."""

    def __init__(self, source: OpenFile) -> None:
        self.source, self.path = source, source.path
        scan = Scan(source, names=_DATA)
        spans = {f"{scan.token}:{number}": span for number, span in enumerate(scan.spans)}

        def make(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            return {
                name: spans.get(value, value) if isinstance(value, str) else value
                for name, value in pairs
            }

        self.root = check_object(
            self.path,
            "the file",
            parse_json(
                self.path, "the file", scan.skeleton, make, encoding="utf-8-sig", room=source.size
            ),
        )
        if self.root.get("version") != VERSION:
            raise other_version(
                self.path,
                Phrase("an export of version {version}", version=shown(self.root.get("version"))),
                Phrase("version {version}", version=VERSION),
            )

    def build(self) -> LanguageModel:
        """The model with vocabulary, weights and, where it can be exact, Adam's state."""
        words = self._words()
        tensors = list(self._tensors())
        config = self._config(tensors, len(words))
        self._check_shapes(tensors, config)
        gpt = RustGPT(config, seed=0)
        arrays: dict[str, Floats] = {"data": gpt.arena.data}
        steps = self._steps(tensors)
        if steps is not None:
            arrays["m"], arrays["v"] = gpt.arena.require_moments()
        in_parallel(
            [
                Job(
                    4 * _size(tensor),
                    partial(self._fill, tensor, name, gpt.arena.view(tensor.parameter, array)),
                )
                for tensor in tensors
                for name, array in arrays.items()
            ]
        )
        llm = LanguageModel(self._tokenizer(words, tensors[0], gpt), gpt, metadata=self._metadata())
        if steps is not None:
            first = tensors[0].adam
            llm.optimizer = AdamW(
                gpt, (first["beta1"], first["beta2"]), first["epsilon"], 0.0, fresh=False
            )
            llm.optimizer.step_count = steps
        return llm

    # Words

    def _words(self) -> list[str]:
        """The words in the order of their ids."""
        vocab = check_object(self.path, "vocab", self.root.get("vocab"))
        encode = check_object(self.path, "vocab.encode", vocab.get("encode"))
        size = len(encode)
        words = [""] * size
        for word, id in encode.items():
            if not is_int(id) or not 0 <= id < size or words[id]:
                raise damaged(
                    self.path,
                    Phrase("the id {id} of the word {word}", id=shown(id), word=shown(word)),
                    Phrase("each of 0 to {n} once", n=size - 1),
                )
            words[id] = word
        decode = check_object(self.path, "vocab.decode", vocab.get("decode"))
        if decode != {str(id): word for id, word in enumerate(words)}:
            raise damaged(
                self.path,
                "vocab.decode that is not vocab.encode turned round",
                "the same words and ids",
            )
        special = check_object(self.path, "special_tokens", vocab.get("special_tokens"))
        for word in SPECIAL[:4]:
            if special.get(word) != encode.get(word, -1):
                raise damaged(self.path, Phrase("no special token '{word}'", word=word), "its id")
        return words

    def _tokenizer(self, words: list[str], table: Tensor, gpt: RustGPT) -> RustTokenizer:
        """The words with jieba's frequencies; those that training never met are never made.

        A word that was once an input has left its trace in Adam's v of its row.
        """
        v: Floats = np.zeros(gpt.parameters()[table.parameter].shape, np.float32)
        self._fill(table, "v", v)
        met: np.ndarray = np.any(v != 0, axis=1)
        if not met.any() or table.adam["timestep"] > _FORGETS:
            met[:] = True
            met[words.index("<|bos|>")] = False
        try:
            scores = jieba_scores(words)
            return RustTokenizer.from_state(
                {
                    "words": words,
                    "scores": [
                        score if seen and (word not in SPECIAL or word == "<|bos|>") else NEVER
                        for word, score, seen in zip(words, scores, met, strict=True)
                    ],
                }
            )
        except DataError as error:
            raise damaged(
                self.path,
                Phrase("a vocabulary that cannot be ({reason})", reason=as_reason(error)),
                "a valid one",
            ) from None

    # Arrays

    def _tensors(self) -> Iterator[Tensor]:
        """Every array of the file, in the order of the layers; the embedding first."""
        layers = self.root.get("layers")
        layers = layers if isinstance(layers, list) else []
        kinds = [next(iter(layer), "") if isinstance(layer, dict) else "" for layer in layers]
        blocks = kinds[1:-1]
        if (
            kinds[:1] != ["Embeddings"]
            or kinds[-1:] != ["OutputProjection"]
            or not blocks
            or set(blocks) != {"TransformerBlock"}
        ):
            raise damaged(
                self.path,
                Phrase("the layers {layers}", layers=shown(kinds, 200)),
                "Embeddings, TransformerBlock at least once, OutputProjection",
            )
        parts = [
            check_object(self.path, kind, layer[kind])
            for kind, layer in zip(kinds, layers, strict=True)
        ]
        yield self._tensor(parts[0], "token_embeddings", "token_optimizer", "wte.weight")
        for number, block in enumerate(parts[1:-1]):
            yield from self._block(block, f"h.{number}")
        yield self._tensor(parts[-1], "w_out", "optimizer", "head.weight")
        yield self._tensor(parts[-1], "b_out", "optimizer_bias", "head.bias")

    def _block(self, block: dict[str, Any], name: str) -> Iterator[Tensor]:
        def part(key: str) -> dict[str, Any]:
            return check_object(self.path, f"{name}.{key}", block.get(key))

        attention, mlp = part("attention"), part("feed_forward")
        for branch, norm in (("attn", part("norm1")), ("mlp", part("norm2"))):
            yield self._tensor(norm, "gamma", "optimizer_gamma", f"{name}.{branch}.ln.weight")
            yield self._tensor(norm, "beta", "optimizer_beta", f"{name}.{branch}.ln.bias")
        for place, key in enumerate(("w_q", "w_k", "w_v")):
            yield self._tensor(
                attention, key, f"optimizer_{key}", f"{name}.attn.c_attn.weight", place
            )
        yield self._tensor(attention, "w_o", "optimizer_w_o", f"{name}.attn.c_proj.weight")
        for number, key in (("1", "c_fc"), ("2", "c_proj")):
            yield self._tensor(
                mlp, f"w{number}", f"optimizer_w{number}", f"{name}.mlp.{key}.weight"
            )
            yield self._tensor(mlp, f"b{number}", f"optimizer_b{number}", f"{name}.mlp.{key}.bias")

    def _tensor(
        self,
        owner: dict[str, Any],
        key: str,
        optimizer: str,
        parameter: str,
        place: int | None = None,
    ) -> Tensor:
        """The array `key` of an object; `place`: the third of the parameter that it is."""
        adam = check_object(self.path, optimizer, owner.get(optimizer))
        shape = self._shape(owner, key)
        for moment in "mv":
            if self._shape(adam, moment) != shape:
                raise damaged(
                    self.path,
                    Phrase(
                        "{name} with {optimizer}.{moment} of another shape",
                        name=parameter,
                        optimizer=optimizer,
                        moment=moment,
                    ),
                    str(shape),
                )
        for name in ("beta1", "beta2", "epsilon", "timestep"):
            self._number(adam, f"{optimizer}.{name}", name)
        rows = slice(None) if place is None else slice(place * shape[1], (place + 1) * shape[1])
        return Tensor(key, owner[f"{key}_data"], shape, adam, parameter, rows)

    def _shape(self, owner: dict[str, Any], key: str) -> list[int]:
        shape, numbers = owner.get(f"{key}_shape"), owner.get(f"{key}_data")
        if (
            not isinstance(numbers, Span)
            or not isinstance(shape, list)
            or len(shape) != 2
            or not all(is_int(n) and n > 0 for n in shape)
            or 2 * shape[0] * shape[1] > self.source.size
        ):
            raise damaged(
                self.path,
                Phrase("{name} of the shape {shape}", name=key, shape=shown(shape)),
                "two whole numbers, and as many numbers as they say",
            )
        return shape

    def _number(self, owner: dict[str, Any], what: str, name: str) -> float:
        value = owner.get(name)
        if not is_number(value) or not 0 <= value < 1e15:
            raise damaged(
                self.path,
                Phrase("the setting {name} as {value}", name=what, value=shown(value)),
                "a number of at least 0",
            )
        return value

    def _config(self, tensors: list[Tensor], n_words: int) -> RustGPTConfig:
        """The shape of the graph, from those of the arrays."""
        metadata = self._part("metadata")
        block = self.root["layers"][1]["TransformerBlock"]
        shapes = {tensor.parameter: tensor.shape for tensor in tensors}
        C = tensors[0].shape[1]
        longest = metadata.get("max_seq_len", 128 if C < 512 else 256)
        eps = self._number(block["norm1"], "norm1.epsilon", "epsilon")
        for number, layer in enumerate(self.root["layers"][1:-1]):
            one = layer["TransformerBlock"]
            if any(one[norm].get("epsilon") != eps for norm in ("norm1", "norm2")) or one[
                "attention"
            ].get("num_heads", _HEADS) != block["attention"].get("num_heads", _HEADS):
                raise damaged(
                    self.path,
                    Phrase("block {n} with another epsilon or number of heads", n=number),
                    "those of block 0",
                )
        try:
            return RustGPTConfig(
                n_layer=len(self.root["layers"]) - 2,
                n_head=block["attention"].get("num_heads", _HEADS),
                n_embd=C,
                n_ff=shapes["h.0.mlp.c_fc.weight"][1],
                vocab_size=n_words,
                block_size=longest,
                norm_eps=eps,
            )
        except ConfigError as error:
            raise damaged(
                self.path,
                Phrase("a configuration that cannot be ({reason})", reason=as_reason(error)),
                "a valid one",
            ) from None

    def _check_shapes(self, tensors: list[Tensor], config: RustGPTConfig) -> None:
        """Each array has the shape that the configuration gives it, turned as the file has it."""
        expected = {entry.name: entry.shape for entry in RustGPT.layout(config)}
        for tensor in tensors:
            shape = expected.get(tensor.parameter, ())
            if tensor.name in ("w_q", "w_k", "w_v"):
                shape = (shape[0] // 3, *shape[1:])
            wanted = (
                [1, *shape]
                if len(shape) == 1
                else list(shape if tensor.parameter == "wte.weight" else shape[::-1])
            )
            if tensor.shape != wanted:
                raise damaged(
                    self.path,
                    Phrase(
                        "{name} ({parameter}) of the shape {shape}",
                        name=tensor.name,
                        parameter=tensor.parameter,
                        shape=tensor.shape,
                    ),
                    str(wanted),
                )

    def _fill(self, tensor: Tensor, what: str, target: Floats) -> None:
        """Read one array, or a moment of it, into its parameter's place."""
        start, end = tensor.numbers if what == "data" else tensor.adam[f"{what}_data"]
        flat = np.empty(_size(tensor), np.float32)
        try:
            read_floats(self.source.read, start, end, flat)
        except ValueError as error:
            raise damaged(
                self.path,
                Phrase(
                    "in {name} ({parameter}) {reason}",
                    name=tensor.name,
                    parameter=tensor.parameter,
                    reason=as_reason(error),
                ),
                Phrase("{n} numbers", n=len(flat)),
            ) from None
        matrix = flat.reshape(tensor.shape)
        if target.ndim == 1:
            target[...] = matrix[0]
        else:
            target[tensor.rows] = matrix if tensor.parameter == "wte.weight" else matrix.T

    # The rest

    def _steps(self, tensors: list[Tensor]) -> int | None:
        """Adam's steps where all arrays agree in them and in the settings; else None."""
        found = {
            tuple(float(tensor.adam[name]) for name in ("beta1", "beta2", "epsilon", "timestep"))
            for tensor in tensors
        }
        beta1, beta2, eps, steps = next(iter(found))
        exact = (
            len(found) == 1 and beta1 < 1 and beta2 < 1 and eps >= LEAST_EPS and steps == int(steps)
        )
        return int(steps) if exact and steps > 0 else None

    def _part(self, name: str) -> dict[str, Any]:
        value = self.root.get(name)
        return {} if value is None else check_object(self.path, name, value)

    def _metadata(self) -> dict[str, Any]:
        """What is kept of the export besides the model."""
        block = self.root["layers"][1]["TransformerBlock"]
        dropout = check_object(self.path, "dropout1", block.get("dropout1", {}))
        found = {"imported_from": "RustGPT-Chinese", "dropout": dropout.get("dropout_rate")}
        info = self._part("metadata").get("training_info")
        return {
            name: value
            for name, value in {**found, "training_info": info}.items()
            if value is not None
        }


def _size(tensor: Tensor) -> int:
    return tensor.shape[0] * tensor.shape[1]
