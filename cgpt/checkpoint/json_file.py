"""Reading an LLM that json_save.py wrote, as a stream: its numbers are never all in memory as text.

The layout is described in docs/persistence.md. A file that was not touched since cgpt wrote it
is checked as a whole (`text_crc32`); one that another program wrote again is checked by the
checksums of its tensors.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from cgpt.checkpoint.json_save import checksum
from cgpt.checkpoint.parts import (
    build_config,
    build_optimizer,
    build_tokenizer,
    build_training_state,
    check_fits,
    check_layers,
)
from cgpt.config import GPTConfig
from cgpt.fileio.failures import damaged, foreign, other_version
from cgpt.fileio.format_v1 import VERSION
from cgpt.fileio.sniff import JSON_FORMAT, JSON_OPENING, format_of
from cgpt.fileio.source import Job, Location, Source, in_parallel
from cgpt.fileio.strict_json import (
    Pairs,
    Scan,
    Span,
    check_listed,
    check_object,
    parse_json,
    read_floats,
)
from cgpt.language_model import LanguageModel, TrainingState
from cgpt.models.registry import family_of
from cgpt.nn.arena import Entry, Floats, aligned, arena_size, read_only
from cgpt.optim.registry import restore_optimizer
from cgpt.tokenizers.tokenizer import Tokenizer

_TAIL = re.compile(rb'\n"text_crc32": "([0-9a-f]{8})"\}\n\Z')
_TAIL_SIZE = len('\n"text_crc32": "00000000"}\n')
_VERSION = re.compile(rb'"version"\s*:\s*%d\s*[,}]' % VERSION)
_KEYS = {
    "format",
    "version",
    "graph",
    "config",
    "vocab",
    "layers",
    "optimizer",
    "training_state",
    "metadata",
    "best_weights",
}


class JsonFile(Source):
    """A JSON model file: everything but the numbers is parsed, the numbers are `Span`s."""

    def __init__(self, path: Location) -> None:
        """Raises CheckpointError: missing, foreign, version or damaged."""
        super().__init__(path)
        try:
            if format_of(path, self.head, self.size) != "json":
                raise foreign(
                    path,
                    "a cgpt model in the binary format where JSON is wanted",
                    "load it with load_model_binary or load_model_auto",
                )
            found = Scan(self, _TAIL_SIZE)
            self._check_text(found.crc)
            self.root = self._parse(found)
            self.config = build_config(path, self.root["graph"], self.root["config"])
        except BaseException:
            self.close()
            raise

    def _check_text(self, crc: int) -> None:
        """Compare the whole text with its checksum, where cgpt wrote it."""
        start = max(0, self.size - _TAIL_SIZE)
        tail = _TAIL.search(self.read(start, self.size - start))
        opened = self.head.startswith(JSON_OPENING)
        if not opened and tail is None:
            return
        if not opened or tail is None:
            raise damaged(
                self.path,
                "a beginning and an end that do not belong together",
                "a file as cgpt wrote it",
            )
        if crc != int(tail[1], 16):
            raise damaged(self.path, f"text with checksum {crc:08x}", f"{tail[1].decode()}")

    def _parse(self, scan: Scan) -> dict[str, Any]:
        """The file's object with every list of numbers under "data" as a Span."""

        def make(pairs: Pairs) -> dict[str, Any]:
            found = dict(pairs)
            data = found.get("data")
            if isinstance(data, str) and data.startswith(scan.token):
                found["data"] = scan.spans[int(data[len(scan.token) + 1 :])]
            return found

        root = check_object(
            self.path,
            "the file",
            parse_json(
                self.path, "the file", scan.skeleton, make, encoding="utf-8-sig", room=self.size
            ),
        )
        if root.get("format") != JSON_FORMAT:
            raise foreign(self.path, f"JSON of the format {root.get('format')!r:.60}")
        if root.get("version") != VERSION:
            raise other_version(
                self.path, f"format version {root.get('version')!r:.60}", f"version {VERSION}"
            )
        missing = sorted((_KEYS ^ root.keys()) - {"text_crc32", "live_weights", "run"})
        if missing:
            raise damaged(self.path, f"'{missing[0]}' missing or unknown", f"{sorted(_KEYS)}")
        return root

    def plain(self, name: str) -> dict[str, Any]:
        """A part that holds no tensors: its "data" lists, if it has any, are lists again."""

        def restore(value: Any) -> Any:
            if isinstance(value, Span):
                text = self.read(value.start, value.end - value.start)
                return parse_json(self.path, name, b"[" + text + b"]")
            if isinstance(value, dict):
                return {key: restore(one) for key, one in value.items()}
            return [restore(one) for one in value] if isinstance(value, list) else value

        part: dict[str, Any] = restore(check_object(self.path, name, self.root[name]))
        return part

    def training_state(self) -> TrainingState:
        """Where the training stands, and which one it is."""
        return build_training_state(
            self.path,
            self.plain("training_state"),
            self.plain("run") if "run" in self.root else None,
        )

    def layers(self) -> list[dict[str, Any]]:
        """The layers without their tensors."""
        return [
            {key: one for key, one in layer.items() if key != "tensors"} for layer in self._layers()
        ]

    def weights(self) -> dict[str, Any]:
        """Every tensor of the layers by name, still to be read."""
        found: dict[str, Any] = {}
        for layer in self._layers():
            tensors = check_object(self.path, "tensors", layer.get("tensors"))
            if sorted(tensors) != sorted(layer["parameters"]) or found.keys() & tensors:
                raise damaged(
                    self.path,
                    f"the tensors {sorted(tensors)!r:.200}",
                    "those that the layer's parameters name",
                )
            found.update(tensors)
        return found

    def _layers(self) -> list[dict[str, Any]]:
        return check_listed(self.path, self.root["layers"])

    def tokenizer(self, config: GPTConfig) -> Tokenizer:
        """The tokenizer of vocab.words and vocab.scores."""
        vocab = check_object(self.path, "vocab", self.root["vocab"])
        words: Any = vocab.get("words")
        scores: Any = vocab.get("scores")
        kind, unscored = vocab.get("kind", "words"), family_of(config).unscored
        if kind == "bpe" and isinstance(words, list) and scores is None:
            scores = [None] * unscored + [0.0] * (len(words) - unscored)
        if not (
            isinstance(words, list)
            and isinstance(scores, list)
            and len(words) == len(scores)
            and scores[:unscored] == [None] * unscored
        ):
            raise damaged(
                self.path,
                "words and scores that do not belong together",
                f"two lists of one length, the first {unscored} scores null",
            )
        return build_tokenizer(self.path, words, scores[unscored:], config, kind)

    def fill(self, tensors: Any, entries: list[Entry], target: Floats) -> None:
        """Read the tensors, which must be exactly those of the entries, into a flat array."""
        tensors = check_object(self.path, "tensors", tensors)
        for name in sorted({entry.name for entry in entries} ^ tensors.keys()):
            raise damaged(
                self.path,
                f"the tensor '{name:.100}' missing or over",
                "the tensors of the configuration",
            )
        for entry in entries:
            tensor = tensors[entry.name]
            if (
                not isinstance(tensor, dict)
                or tensor.keys() != {"shape", "crc32", "data"}
                or tensor["shape"] != list(entry.shape)
                or not isinstance(tensor["data"], Span)
            ):
                raise damaged(
                    self.path,
                    f"the tensor '{entry.name}' as {tensor!r:.200}",
                    f"shape {list(entry.shape)}, crc32 and data (a list of numbers)",
                )
        in_parallel(
            [
                Job(4 * entry.size, partial(self._fill_one, tensors[entry.name], entry, target))
                for entry in entries
            ]
        )

    def _fill_one(self, tensor: dict[str, Any], entry: Entry, target: Floats) -> None:
        flat = target[entry.offset : entry.offset + entry.size]
        start, end = tensor["data"]
        try:
            read_floats(self.read, start, end, flat)
        except ValueError as error:
            raise damaged(
                self.path, f"in the tensor '{entry.name}' {error}", f"{entry.size} numbers"
            ) from None
        if f"{checksum(flat):08x}" != tensor["crc32"]:
            raise damaged(
                self.path,
                f"the tensor '{entry.name}' with checksum {checksum(flat):08x}",
                f"{tensor['crc32']!r:.60}",
            )


def quick_check(source: Source) -> bool:
    """Whether an open file that begins like a cgpt JSON file also ends like a whole one."""
    if not _VERSION.search(source.head):
        return False
    start = max(0, source.size - _TAIL_SIZE)
    tail = source.read(start, source.size - start)
    if source.head.startswith(JSON_OPENING):
        return _TAIL.search(tail) is not None
    return tail.rstrip().endswith(b"}")


def load(path: Location, *, training: bool = True) -> LanguageModel:
    """Read an LLM; see `cgpt.load_model_json`."""
    with JsonFile(path) as file:
        # The shortest number and its comma are two characters.
        entries = check_fits(path, file.config, file.size // 2)
        state = file.training_state()
        tokenizer = file.tokenizer(file.config)
        weights = aligned(arena_size(entries), zero=True)
        gpt = family_of(file.config).model(
            file.config, weights=weights if training else read_only(weights)
        )
        check_layers(path, file.layers(), gpt)
        file.fill(file.weights(), entries, weights)
        llm = LanguageModel(tokenizer, gpt, training_state=state, metadata=file.plain("metadata"))
        if training:
            _read_training(file, llm, entries)
    return llm


def _read_training(file: JsonFile, llm: LanguageModel, entries: list[Entry]) -> None:
    """Give `llm` the optimizer and the best weights of the file, where it has them."""
    if file.root["optimizer"] is not None:
        settings = check_object(file.path, "optimizer", file.root["optimizer"])
        llm.optimizer = build_optimizer(file.path, llm.gpt, settings, restore_optimizer)
        for name, array in zip("mv", llm.gpt.arena.require_moments(), strict=True):
            file.fill(settings.get(name), entries, array)
    if file.root["best_weights"] is not None:
        llm.best_weights = aligned(arena_size(entries), zero=True)
        file.fill(file.root["best_weights"], entries, llm.best_weights)
    if "live_weights" in file.root:
        llm.average = llm.gpt.arena.data.copy()
        file.fill(file.root["live_weights"], entries, llm.gpt.arena.data)
