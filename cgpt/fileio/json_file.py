"""A JSON model file opened for reading: its numbers are never all in memory as text.

The layout is described in docs/persistence.md. A file that was not touched since cgpt wrote it
is checked as a whole (`text_crc32`); one that another program wrote again is checked by the
checksums of its tensors.
"""

from __future__ import annotations

import re
from typing import Any

from cgpt.errors import Phrase, shown
from cgpt.fileio.file_errors import damaged, foreign, other_version
from cgpt.fileio.file_kind import JSON_FORMAT, JSON_OPENING, format_of
from cgpt.fileio.format_v1 import VERSION
from cgpt.fileio.open_file import Location, OpenFile
from cgpt.fileio.strict_json import Pairs, Scan, Span, check_listed, check_object, parse_json

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


class JsonFile(OpenFile):
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
            raise damaged(
                self.path, Phrase("text with checksum {crc:08x}", crc=crc), tail[1].decode()
            )

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
            raise foreign(
                self.path, Phrase("JSON of the format {name}", name=shown(root.get("format")))
            )
        if root.get("version") != VERSION:
            raise other_version(
                self.path,
                Phrase("format version {version}", version=shown(root.get("version"))),
                Phrase("version {version}", version=VERSION),
            )
        missing = sorted((_KEYS ^ root.keys()) - {"text_crc32", "live_weights", "run"})
        if missing:
            raise damaged(
                self.path,
                Phrase("'{name}' missing or unknown", name=missing[0]),
                str(sorted(_KEYS)),
            )
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
                    Phrase("the tensors {names}", names=str(shown(sorted(tensors), 200))),
                    "those that the layer's parameters name",
                )
            found.update(tensors)
        return found

    def _layers(self) -> list[dict[str, Any]]:
        return check_listed(self.path, self.root["layers"])


def quick_check(source: OpenFile) -> bool:
    """Whether an open file that begins like a cgpt JSON file also ends like a whole one."""
    if not _VERSION.search(source.head):
        return False
    start = max(0, source.size - _TAIL_SIZE)
    tail = source.read(start, source.size - start)
    if source.head.startswith(JSON_OPENING):
        return _TAIL.search(tail) is not None
    return tail.rstrip().endswith(b"}")
