"""A reader of cgpt's binary format, written from docs/format_v1.md alone.

Standard library only, nothing from cgpt: what it reads is what the specification says. Tests
compare it with what cgpt reads. Run it on a file to list its records:

    python tests/independent_reader.py checkpoints/model_final.bin
"""

from __future__ import annotations

import array
import hashlib
import json
import math
import struct
import sys
import zlib
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

SIGNATURE = bytes.fromhex("89 43 47 50 54 0D 0A 1A")
KINDS = {
    1: "config",
    2: "vocabulary",
    3: "layer",
    4: "training_state",
    5: "metadata",
    6: "optimizer",
    7: "tokenizer",
    8: "run",
    16: "tensor",
    17: "adam_m",
    18: "adam_v",
    19: "best_tensor",
    20: "scale",
    21: "live_tensor",
    22: "base_tensor",
}
ITEM_SIZES = {0: 1, 1: 4, 2: 2, 3: 2, 4: 1, 5: 1, 6: 4, 7: 8, 8: 8}
SPECIAL = ["<pad>", "<bos>", "<eos>", "<user>", "<assistant>", "<system>"]


class FormatError(Exception):
    """The file is not what the specification describes."""


def require(condition: object, message: str) -> None:
    if not condition:
        raise FormatError(message)


@dataclass
class Entry:
    """One entry of the table."""

    kind: int
    dtype: int
    flags: int
    crc: int
    offset: int
    length: int
    shape: tuple[int, ...]
    name: str


@dataclass
class Model:
    """What a file holds; tensors are arrays of floats by name, int8 ones also as they lie."""

    version: int
    entries: list[Entry]
    graph: str = ""
    config: dict[str, int] = field(default_factory=dict)
    weights: dict[str, Any] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    layers: list[dict[str, Any]] = field(default_factory=list)
    training_state: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] | None = None
    optimizer: dict[str, Any] | None = None
    tokenizer: dict[str, Any] = field(default_factory=lambda: {"kind": "words"})
    tensors: dict[str, array.array[float]] = field(default_factory=dict)
    adam_m: dict[str, array.array[float]] = field(default_factory=dict)
    adam_v: dict[str, array.array[float]] = field(default_factory=dict)
    best: dict[str, array.array[float]] = field(default_factory=dict)
    live: dict[str, array.array[float]] = field(default_factory=dict)
    base: dict[str, array.array[float]] = field(default_factory=dict)
    scales: dict[str, array.array[float]] = field(default_factory=dict)
    quantized: dict[str, array.array[int]] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)


def align(n: int, to: int = 64) -> int:
    return (n + to - 1) // to * to


def read(path: str) -> Model:
    """Read and check a whole file. Raises FormatError."""
    with open(path, "rb") as file:
        return parse(file.read())


def parse(data: bytes) -> Model:
    """A whole file's bytes as a Model."""
    n_records, table_length = parse_header(data)
    entries = parse_table(data[64 : 64 + table_length], n_records)
    check_places(data, entries, 64 + table_length)
    model = Model(1, entries)
    for entry in entries:
        if entry.kind in KINDS:
            add(model, entry, data[entry.offset : entry.offset + entry.length])
    (check_adapter if model.graph.endswith("+lora") else check_whole)(model)
    return model


def parse_header(data: bytes) -> tuple[int, int]:
    """(number of records, length of the table)."""
    require(data[:8] == SIGNATURE, "not a file of cgpt")
    require(len(data) >= 64, "the header is cut")
    require(struct.unpack_from("<I", data, 60)[0] == zlib.crc32(data[:60]), "header damaged")
    (
        version,
        order,
        size,
        n_records,
        length,
        table,
        table_length,
        table_crc,
        features,
        _compatible,
    ) = struct.unpack_from("<IIIIQQQIII", data, 8)
    require(version == 1, f"version {version}")
    require(features == 0, "unknown feature bits")
    require((order, size, table) == (0x01020304, 64, 64), "odd header")
    require(length == len(data) and length % 64 == 0, "wrong length")
    require(64 + table_length <= length and n_records <= 1 << 16, "table outside the file")
    require(zlib.crc32(data[64 : 64 + table_length]) == table_crc, "table damaged")
    return n_records, table_length


def parse_table(table: bytes, n_records: int) -> list[Entry]:
    entries, at = [], 0
    for _ in range(n_records):
        require(at + 32 <= len(table), "table too short")
        kind, dtype, dims, flags, n, crc, reserved, offset, length = struct.unpack_from(
            "<HBBHHIIQQ", table, at
        )
        end = align(at + 32 + 8 * dims + n, 8)
        require(dims <= 8 and 1 <= n <= 1024 and end <= len(table), "odd entry")
        shape = struct.unpack_from(f"<{dims}Q", table, at + 32)
        start = at + 32 + 8 * dims
        name = table[start : start + n].decode("utf-8")
        require(
            not any(table[start + n : end]) and reserved == 0, "padding of an entry is not zero"
        )
        require(flags in (0, 1) and dtype in ITEM_SIZES, "unknown flags or type")
        require(kind in KINDS or flags == 1, f"unknown kind {kind}")
        if dtype:
            size = ITEM_SIZES[dtype]
            for one in shape:
                size *= one
            require(shape and size == length > 0, f"shape of {name}")
        entries.append(Entry(kind, dtype, flags, crc, offset, length, shape, name))
        at = end
    require(at == len(table), "bytes after the last entry")
    return entries


def check_places(data: bytes, entries: list[Entry], table_end: int) -> None:
    """Sorted, unique, one behind the other, zeros between, every checksum right."""
    last, previous, seen = table_end, 0, set()
    for entry in entries:
        require(entry.kind >= previous, "entries out of order")
        require((entry.kind, entry.name) not in seen, f"{entry.name} twice")
        require(entry.offset == align(last), f"{entry.name} at the wrong place")
        require(not any(data[last : entry.offset]), f"padding before {entry.name} is not zero")
        seen.add((entry.kind, entry.name))
        previous, last = entry.kind, entry.offset + entry.length
        require(last <= len(data), f"{entry.name} outside the file")
        require(zlib.crc32(data[entry.offset : last]) == entry.crc, f"{entry.name} damaged")
    require(align(last) == len(data) and not any(data[last:]), "bytes at the end")


def add(model: Model, entry: Entry, payload: bytes) -> None:
    """Put one record's payload where it belongs."""
    kind = KINDS[entry.kind]
    if kind == "vocabulary":
        model.words, model.scores = parse_vocabulary(payload, model.graph)
    elif entry.kind < 16:
        value = json.loads(payload.decode("ascii"))
        if kind == "config":
            model.graph, model.config = value["graph"], value["config"]
            model.weights = value.get("weights", {"form": "float32"})
        elif kind == "layer":
            model.layers.append(value)
        else:
            setattr(model, kind, value)
    else:
        add_tensor(model, entry, payload, kind)


def add_tensor(model: Model, entry: Entry, payload: bytes, kind: str) -> None:
    """Numbers as floats; int8 ones wait for their scales, which come later."""
    if kind != "scale":
        known = model.shapes.setdefault(entry.name, entry.shape)
        require(known == entry.shape, "shapes differ")
    if kind == "tensor" and entry.dtype == 2:
        model.tensors[entry.name] = array.array(
            "f", struct.unpack(f"<{len(payload) // 2}e", payload)
        )
    elif kind == "tensor" and entry.dtype == 4:
        require(len(entry.shape) == 2, f"{entry.name} is int8 and no matrix")
        model.quantized[entry.name] = array.array("b", payload)
    else:
        require(entry.dtype == 1, f"{entry.name} is not float32")
        numbers = array.array("f", payload)
        if sys.byteorder == "big":
            numbers.byteswap()
        target = {
            "tensor": model.tensors,
            "adam_m": model.adam_m,
            "adam_v": model.adam_v,
            "best_tensor": model.best,
            "live_tensor": model.live,
            "scale": model.scales,
            "base_tensor": model.base,
        }[kind]
        target[entry.name] = numbers
        if kind == "scale":
            restore(model, entry)


def restore(model: Model, entry: Entry) -> None:
    """weight[r][c] = q[r][c] * scale[r][c // group]."""
    require(entry.name in model.quantized, f"scales of {entry.name}, which is not int8")
    group = model.weights["group"]
    require(group in (32, 64), "odd group")
    rows, columns = model.shapes[entry.name]
    per_row = -(-columns // group)
    require(entry.shape == (rows, per_row), f"shape of the scales of {entry.name}")
    q, scales = model.quantized[entry.name], model.scales[entry.name]
    model.tensors[entry.name] = array.array(
        "f",
        (
            q[r * columns + c] * scales[r * per_row + c // group]
            for r in range(rows)
            for c in range(columns)
        ),
    )


def parse_vocabulary(payload: bytes, graph: str) -> tuple[list[str], list[float]]:
    n, first, size = struct.unpack_from("<IIQ", payload)
    graph = graph.removesuffix("+lora")
    require(first == (0 if graph == "rustgpt" else 262) and n >= first, "odd vocabulary")
    text = 16 + 8 * (n - first) + 4 * (n + 1)
    require(len(payload) == text + size, "vocabulary of the wrong length")
    scores = list(struct.unpack_from(f"<{n - first}d", payload, 16))
    starts = struct.unpack_from(f"<{n + 1}I", payload, 16 + 8 * (n - first))
    require(starts[0] == 0 and starts[-1] == size and list(starts) == sorted(starts), "odd offsets")
    words = [
        payload[text + starts[i] : text + starts[i + 1]].decode("utf-8", "surrogatepass")
        for i in range(n)
    ]
    if graph == "rustgpt":
        require({"<|pad|>", "<|unk|>", "<|bos|>", "</s>"} <= set(words), "no special tokens")
    else:
        require(words[:262] == SPECIAL + [f"<0x{i:02X}>" for i in range(256)], "odd first words")
    require(len(set(words)) == n and all(words), "words that are empty or there twice")
    require(
        all(abs(score) <= 1e6 or (graph == "rustgpt" and score == -math.inf) for score in scores),
        "odd scores",
    )
    return words, scores


def check_whole(model: Model) -> None:
    """What is necessary is there, and the parameters are those of the graph."""
    counts = [sum(entry.kind == kind for entry in model.entries) for kind in (1, 2, 4, 5)]
    require(counts == [1, 1, 1, 1], "a necessary record is missing")
    expected = parameters_of(model.graph, model.config)
    order = [entry.name for entry in model.entries if entry.kind == 16]
    require(list(model.scales) == list(model.quantized), "not one record of scales for each int8")
    require(
        model.optimizer is None or model.weights["form"] == "float32",
        "an optimizer beside rounded weights",
    )
    require(order == list(expected), "other parameters than the graph's")
    for name, shape in expected.items():
        require(model.shapes[name] == shape, f"shape of {name}")
    for found in (model.adam_m, model.adam_v, model.best, model.live):
        require(not found or list(found) == order, "moments or best weights incomplete")
    require(
        bool(model.adam_m) == bool(model.adam_v) == (model.optimizer is not None),
        "a part of the optimizer is missing",
    )
    named = [name for layer in model.layers for name in layer["parameters"]]
    require(sorted(named) == sorted(order), "layers that do not name every parameter once")
    require(len(model.words) <= model.config["vocab_size"], "more words than embeddings")


def check_adapter(model: Model) -> None:
    """The records of an adapter and no others; its tensors are what its settings say."""
    counts = [sum(entry.kind == kind for entry in model.entries) for kind in (1, 4, 5, 6)]
    require(counts == [1, 1, 1, 1], "a necessary record is missing")
    kinds = {entry.kind for entry in model.entries}
    require(
        kinds - {1, 4, 5, 6, 16, 17, 18, 19, 21} <= ({2, 3, 7, 22} if 22 in kinds else set()),
        "a record that an adapter has not",
    )
    settings = model.optimizer or {}
    require(settings.get("kind") == "lora" and len(settings["fingerprint"]) == 32, "odd settings")
    rank, expected = settings["rank"], {}
    parameters = parameters_of(model.graph.removesuffix("+lora"), model.config)
    require(bool(model.base) == (settings["base"] == ""), "no model, or two")
    if model.base:
        check_base(model, parameters)
    for name, shape in parameters.items():
        if (
            name.startswith("h.")
            and len(shape) == 2
            and any(fnmatchcase(name, pattern) for pattern in settings["layers"])
        ):
            require(1 <= rank <= min(shape), "odd rank")
            expected[name + ".lora_a"] = (rank, shape[1])
            expected[name + ".lora_b"] = (shape[0], rank)
    order = [entry.name for entry in model.entries if entry.kind == 16]
    require(
        order == list(expected)
        and model.shapes == {**expected, **(parameters if model.base else {})},
        "other tensors than its settings",
    )
    for found in (model.adam_m, model.adam_v, model.best, model.live):
        require(not found or list(found) == order, "moments or best ones incomplete")
    require(model.adam_m and model.adam_v, "no moments")


def check_base(model: Model, parameters: dict[str, tuple[int, ...]]) -> None:
    """An adapter's file that carries the model: whole, and with the weights of the fingerprint."""
    require(list(model.base) == list(parameters), "other parameters of the model than the graph's")
    require(
        [sum(entry.kind == kind for entry in model.entries) for kind in (2, 22)]
        == [1, len(parameters)],
        "a model without its vocabulary",
    )
    named = [name for layer in model.layers for name in layer["parameters"]]
    require(sorted(named) == sorted(parameters), "layers that do not name every parameter once")
    require(fingerprint(model.base) == (model.optimizer or {})["fingerprint"], "another model")


def fingerprint(tensors: dict[str, array.array[float]]) -> str:
    region = b"".join(
        data + bytes(align(len(data)) - len(data)) for data in map(bytes_of, tensors.values())
    )
    return hashlib.blake2b(region, digest_size=16).hexdigest()


def merged(model: Model, adapter: Model) -> dict[str, array.array[float]]:
    """The weights of a model with an adapter: W = W0 + alpha / rank B A."""
    settings = adapter.optimizer or {}
    require(
        adapter.graph == model.graph + "+lora" and adapter.config == model.config,
        "a model of another shape",
    )
    require(
        fingerprint(model.tensors) == settings["fingerprint"],
        "other weights than the adapter was trained on",
    )
    found, rank = dict(model.tensors), settings["rank"]
    for name in adapter.tensors:
        if name.endswith(".lora_a"):
            name = name.removesuffix(".lora_a")
            a, b = adapter.tensors[name + ".lora_a"], adapter.tensors[name + ".lora_b"]
            rows, columns = model.shapes[name]
            found[name] = array.array(
                "f",
                (
                    model.tensors[name][r * columns + c]
                    + settings["alpha"]
                    / rank
                    * sum(b[r * rank + k] * a[k * columns + c] for k in range(rank))
                    for r in range(rows)
                    for c in range(columns)
                ),
            )
    return found


def bytes_of(numbers: array.array[float]) -> bytes:
    """As they lie in a file."""
    return struct.pack(f"<{len(numbers)}f", *numbers)


def parameters_of(graph: str, config: dict[str, int]) -> dict[str, tuple[int, ...]]:
    """Names and shapes in the order of the file. Raises FormatError for an unknown graph."""
    require(graph in ("gpt2", "rustgpt"), f"graph {graph}")
    return (parameters if graph == "gpt2" else rustgpt_parameters)(config)


def parameters(config: dict[str, int]) -> dict[str, tuple[int, ...]]:
    """Names and shapes in the order of the file."""
    C, F = config["n_embd"], config["n_ff"]
    layers = [f"h.{i}" for i in range(config["n_layer"])]
    found: dict[str, tuple[int, ...]] = {
        "wte.weight": (config["vocab_size"], C),
        "wpe.weight": (config["block_size"], C),
    }
    for h in layers:
        found[f"{h}.attn.c_attn.weight"] = (3 * C, C)
        found[f"{h}.attn.c_proj.weight"] = (C, C)
        found[f"{h}.mlp.c_fc.weight"] = (F, C)
        found[f"{h}.mlp.c_proj.weight"] = (C, F)
    for h in layers:
        for name, size in (
            ("attn.ln.weight", C),
            ("attn.ln.bias", C),
            ("attn.c_attn.bias", 3 * C),
            ("attn.c_proj.bias", C),
            ("mlp.ln.weight", C),
            ("mlp.ln.bias", C),
            ("mlp.c_fc.bias", F),
            ("mlp.c_proj.bias", C),
        ):
            found[f"{h}.{name}"] = (size,)
    found["ln_f.weight"] = found["ln_f.bias"] = (C,)
    return found


def rustgpt_parameters(config: dict[str, int]) -> dict[str, tuple[int, ...]]:
    """The same of the graph "rustgpt"."""
    V, C = config["vocab_size"], config["n_embd"]
    without = {"wpe.weight", "ln_f.weight", "ln_f.bias"}
    found = {
        name: shape
        for name, shape in parameters(config).items()
        if name not in without and not name.endswith(("attn.c_attn.bias", "attn.c_proj.bias"))
    }
    matrices = {name: shape for name, shape in found.items() if len(shape) == 2}
    vectors = {name: shape for name, shape in found.items() if len(shape) == 1}
    return {**matrices, "head.weight": (V, C), **vectors, "head.bias": (V,)}


if __name__ == "__main__":
    for one in read(sys.argv[1]).entries:
        print(
            f"{KINDS.get(one.kind, one.kind):15} {one.name:28} {list(one.shape)!s:14} "
            f"{one.offset:>10} {one.length:>10} {one.crc:08x}"
        )
