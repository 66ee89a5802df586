"""A damaged cache of tokens is noticed, told and made again from the files."""

from __future__ import annotations

import errno
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Counted
from small_llm import DIALOGUES, TEXTS, small_tokenizer
from test_prepare import MIXED, small_shards, trained, write

from cgpt.cli import main
from cgpt.corpus import shards, token_cache
from cgpt.corpus.reader import Reading, fingerprint_of
from cgpt.corpus.shards import Damaged, read_index, read_shard, write_index, write_shard
from cgpt.corpus.sources import Source
from cgpt.errors import DataError

__all__ = ["small_shards"]


@pytest.fixture
def prepared(
    small_shards: None, tmp_path: Path, request: pytest.FixtureRequest
) -> Callable[[], token_cache.Prepared]:
    """Prepares a corpus of several shards, or finds it."""
    items = getattr(request, "param", MIXED[:-1])
    path, tokenizer = write(tmp_path / "a.jsonl", items), small_tokenizer()
    return lambda: token_cache.prepare(
        Reading(path),
        fingerprint_of([path]),
        tokenizer,
        tmp_path / "cache",
        unique=False,
        threads=2,
    )


@pytest.mark.parametrize("prepared", [[*TEXTS[:2], DIALOGUES[0]]], indirect=True)
def test_every_flipped_bit_is_noticed(
    prepared: Callable[[], token_cache.Prepared], counted: Counted
) -> None:
    """All of a shard and of the index; \\u00ff is the same as \\u00FF."""
    made, missed, same = prepared(), [], 0
    for name in ("000001.shard", "index.json"):
        path = made.entry / name
        whole = path.read_bytes()
        for at, byte in enumerate(whole):
            for bit in range(8):
                path.write_bytes(whole[:at] + bytes([byte ^ 1 << bit]) + whole[at + 1 :])
                damaged: set[str] = set()
                found = token_cache._load(made.entry, made.store.tokenizer, 1, damaged)
                if found is None:
                    assert damaged == {name}
                elif (
                    found.files == made.files
                    and found.store.digests == made.store.digests
                    and found.first_dialogue == made.first_dialogue
                ):
                    same += 1
                else:
                    missed.append((name, at, bit))
        path.write_bytes(whole)
        counted("flipped bits of a cache's shard and index", 8 * len(whole))
    letters = sum(
        character in "abcdef"
        for part in (made.entry / "index.json").read_text("ascii").split("\\u")[1:]
        for character in part[:4]
    )
    assert missed == [] and same == letters
    assert prepared().cached


def test_every_truncation_and_what_is_added(prepared: Callable[[], token_cache.Prepared]) -> None:
    made = prepared()
    for name in ("000001.shard", "index.json"):
        path = made.entry / name
        whole = path.read_bytes()
        for other in (
            *(whole[:size] for size in range(len(whole))),
            whole + b"\0",
            whole + whole,
            b"\xff" * len(whole),
            bytes(len(whole)),
        ):
            path.write_bytes(other)
            damaged: set[str] = set()
            assert token_cache._load(made.entry, made.store.tokenizer, 1, damaged) is None
            assert damaged == {name}
        path.write_bytes(whole)


def test_a_damaged_cache_is_made_again(prepared: Callable[[], token_cache.Prepared]) -> None:
    made = prepared()
    assert not made.cached and not made.repaired and len(made.store.digests) > 3
    second, third, index = (
        made.entry / name for name in ("000001.shard", "000002.shard", "index.json")
    )
    whole = {path.name: path.read_bytes() for path in made.entry.iterdir()}
    harms: list[tuple[Callable[[], object], set[str]]] = [
        (lambda: second.write_bytes(b"xx"), {second.name}),
        (lambda: second.write_bytes(b""), {second.name}),
        (lambda: second.unlink(), {second.name}),
        (lambda: second.write_bytes(third.read_bytes()), {second.name}),  # whole, but another
        (
            lambda: (second.write_bytes(third.read_bytes()), third.unlink()),
            {second.name, third.name},
        ),
        (lambda: index.write_bytes(b"{"), {index.name}),
        (lambda: (index.unlink(), second.write_bytes(whole[second.name][:-1])), {second.name}),
        (lambda: index.unlink(), set()),
    ]
    for harm, names in harms:
        harm()
        again = prepared()
        assert not again.cached and set(again.repaired) == names
        assert again.store.digests == made.store.digests and again.files == made.files
        assert {path.name: path.read_bytes() for path in made.entry.iterdir()} == whole
        assert prepared().cached and not prepared().repaired


def test_a_disk_that_cannot_read_costs_a_shard_only(
    prepared: Callable[[], token_cache.Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared()
    real, failing = shards._checksum, [errno.EIO]

    def checksum(file: io.RawIOBase, crc: int) -> int:
        if str(file.name).endswith("000001.shard") and failing:
            raise OSError(failing.pop(), "as told")
        return real(file, crc)

    monkeypatch.setattr(shards, "_checksum", checksum)
    assert prepared().repaired == ("000001.shard",)
    failing.append(errno.EACCES)
    with pytest.raises(DataError, match="cannot be written or read"):
        prepared()
    with monkeypatch.context() as broken:
        broken.setattr(
            Path, "read_bytes", lambda path: (_ for _ in ()).throw(OSError(errno.EIO, "as told"))
        )
        with pytest.raises(Damaged):
            read_index(Path("somewhere"))


def test_lies_with_right_checksums(prepared: Callable[[], token_cache.Prepared]) -> None:
    made = prepared()
    index = read_index(made.entry)
    for harm in (
        {"files": 5},
        {"files": []},
        {"digests": 5},
        {"digests": []},
        {"first_dialogue": [["user"]]},
        {"first_dialogue": [["user", "a"], ["user", "b"]]},
        {"files": [{"path": "a", "documents": {}}]},
    ):
        write_index(made.entry, {**index, **harm})
        damaged: set[str] = set()
        assert token_cache._load(made.entry, made.store.tokenizer, 1, damaged) is None
        assert "index.json" in damaged
    path, kind = made.entry / "000001.shard", np.dtype("<i2")
    shard = read_shard(path, kind)
    for sizes in (shard.sizes[:-1], shard.sizes + 1, np.full(1, -(2**31), np.int32)):
        write_shard(path, shards.Shard(shard.tokens, sizes), kind)
        with pytest.raises(Damaged):
            read_shard(path, kind)
    for count in (-1, 1 << 40, 1 << 62):
        rest = np.array([count], "<i8").tobytes() + bytes(40)
        crc = shards.crc32(rest, shards.place_checksum(path))
        path.write_bytes(crc.to_bytes(8, "little") + rest)
        with pytest.raises(Damaged):
            read_shard(path, kind)


def test_it_is_told_and_trains_to_the_same_bits(
    small_shards: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "a.jsonl", [*TEXTS, *DIALOGUES])
    expected = trained([*TEXTS, *DIALOGUES], "pretrain")
    source = Source([str(path)], "pretrain", unique=False)
    source.documents(small_tokenizer())

    def damage() -> None:
        for shard in tmp_path.glob("cache/*/000001.shard"):
            content = bytearray(shard.read_bytes())
            content[-1] ^= 1
            shard.write_bytes(content)

    damage()
    source = Source([str(path)], "pretrain", unique=False)
    assert trained(source.documents(small_tokenizer()), "pretrain") == expected
    assert source.repaired == ("000001.shard",)
    for command in (
        ["data", "a.jsonl"],
        [
            "train",
            "--pretrain",
            "a.jsonl",
            "--preset",
            "tiny",
            "--max-steps",
            "1",
            "--out",
            "m.bin",
            "--overwrite",
        ],
    ):
        assert main([*command, "--tokenizer", "chars"]) == 0
        assert "损坏" not in "".join(capsys.readouterr())
        for language, words in (
            ("zh", ("缓存", "有损坏的文件", "重新制作", "000001.shard")),
            ("en", ("the cache", "had damaged files", "000001.shard", "made again")),
        ):
            damage()
            assert main(["--lang", language, *command, "--tokenizer", "chars"]) == 0
            shown = " ".join("".join(capsys.readouterr()).split())
            assert all(word in shown for word in words)
    damage()
    assert main(["data", "a.jsonl", "--tokenizer", "chars", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mended"] == ["000001.shard"]
    damage()
    path.unlink()  # then there is nothing to make it from
    assert main(["data", "a.jsonl", "--tokenizer", "chars"]) == 1
    assert "a.jsonl" in capsys.readouterr().err
