"""Reading every accepted form, refusing the rest by name, templates and packing."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cgpt.corpus.encoding import Sample, encode_dialogue, encode_document, encode_prompt
from cgpt.corpus.files import packaged_data
from cgpt.corpus.packing import pack, split_samples
from cgpt.corpus.reader import read_corpus
from cgpt.corpus.records import Message
from cgpt.errors import DataError
from cgpt.tokenizers.tokenizer import Tokenizer

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
HELLO = (Message("user", "你好"), Message("assistant", "你好！"))
MESSAGES = {
    "messages": [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "你好！"}]
}
TOKENIZER = Tokenizer.from_state(
    {"words": [*"你好！山水再见", "再见"], "scores": [-3.0] * 7 + [-2.0]}
)


def write(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_bytes(content.encode())
    else:
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


def jsonl(*items: Any) -> str:
    return "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)


def turns(*contents: str, system: str = "") -> tuple[Message, ...]:
    first = (Message("system", system),) if system else ()
    return first + tuple(
        Message("assistant" if i % 2 else "user", content) for i, content in enumerate(contents)
    )


# ---------------------------------------------------------------- forms


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", [MESSAGES]),
        ("a.JSON", [MESSAGES]),
        ("a.json", MESSAGES),
        ("a.json", {"version": 1, "data": [MESSAGES]}),
        ("a.jsonl", jsonl(MESSAGES)),
        ("a.jsonl", jsonl(MESSAGES).replace("\n", "\r\n") + "\n\n"),
        ("a.json", b"\xef\xbb\xbf" + json.dumps([MESSAGES]).encode()),
        ("a.jsonl", b"\xef\xbb\xbf" + jsonl(MESSAGES).encode()),
        (
            "a.json",
            [
                {
                    "conversations": [
                        {"from": "human", "value": "你好"},
                        {"from": "gpt", "value": "你好！"},
                    ]
                }
            ],
        ),
        ("a.json", [{"conversations": MESSAGES["messages"]}]),
        ("a.json", [{"instruction": "你好", "input": "", "output": "你好！"}]),
        ("a.jsonl", jsonl({"instruction": "你好", "output": "你好！"})),
        ("a.json", ["用户：你好助手：你好！"]),
        ("a.json", ["用户: 你好\n助手: 你好！</s>"]),
        ("a.json", ["<s> User: 你好 Assistant: 你好！ </s>"]),
        ("a.jsonl", jsonl({"text": "User: 你好</s> Assistant: 你好！"})),
        ("a.txt", "用户：你好\r\n助手：你好！\r\n"),
    ],
)
def test_forms_of_a_dialogue(tmp_path: Path, name: str, content: Any) -> None:
    corpus = read_corpus(write(tmp_path, name, content))
    assert corpus.dialogues == [HELLO] and corpus.documents == []
    assert (corpus.files[0].documents, corpus.files[0].dialogues) == (0, 1)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", ["山\r\n高 ", "水"]),
        ("a.jsonl", jsonl("山\r\n高 ", {"text": "水"})),
        ("a.json", [{"text": "山\r\n高 "}, "<s>水 </s>"]),
        ("a.json", ["山\r\n高 ", "水<|endoftext|></s>\n"]),
    ],
)
def test_forms_of_a_document_keep_their_text(tmp_path: Path, name: str, content: Any) -> None:
    assert read_corpus([write(tmp_path, name, content)]).documents == ["山\r\n高 ", "水"]


def test_text_files(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", b"\xef\xbb\xbf" + "\r\n  山\r\n高 \r\n \r\n\n水\r河".encode())
    assert read_corpus(path).documents == ["  山\n高 ", "水\n河"]


def test_alpaca_with_input_history_and_system(tmp_path: Path) -> None:
    item = {
        "instruction": "翻译",
        "input": "山",
        "output": "mountain",
        "system": "简短",
        "history": [["你好", "你好！"]],
    }
    corpus = read_corpus(write(tmp_path, "a.json", [item]))
    assert corpus.dialogues == [turns("你好", "你好！", "翻译\n山", "mountain", system="简短")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("用户：一助手：二用户：三助手：四", turns("一", "二", "三", "四")),
        ("User: a Assistant: b </s> User: c Assistant: d</s>", turns("a", "b", "c", "d")),
        ("系统：简短用户：一助手：二", turns("一", "二", system="简短")),
        ("用户：说“用户：”助手：好，用户：是标签", turns("说“用户：”", "好，用户：是标签")),
        ("用户：一助手：助手：二", turns("一", "助手：二")),
        ("User: what is SuperUser: x Assistant: b", turns("what is SuperUser: x", "b")),
    ],
)
def test_older_strings(tmp_path: Path, text: str, expected: Any) -> None:
    assert read_corpus(write(tmp_path, "a.json", [text])).dialogues == [expected]


@pytest.mark.parametrize(
    "text",
    ["用户：没有回答", "助手：先说的", "他说用户：一助手：二", "a </s> b", "用户手册：助手：一"],
)
def test_strings_that_are_documents(tmp_path: Path, text: str) -> None:
    corpus = read_corpus(write(tmp_path, "a.json", [text]))
    assert corpus.documents == [text] and not corpus.dialogues


def test_idioms(tmp_path: Path) -> None:
    data = {
        "metadata": {"version": "2.0"},
        "idioms": [{"成语": "一心一意", "释义": "专一。", "近义词": ["全心全意", "专心致志"]}],
    }
    corpus = read_corpus(write(tmp_path, "a.json", data))
    assert corpus.documents == ["成语：一心一意\n释义：专一。\n近义词：全心全意、专心致志"]


def test_blank_strings_are_dropped_and_counted(tmp_path: Path) -> None:
    corpus = read_corpus(write(tmp_path, "a.json", ["", "山", " \n", "</s>"]))
    assert corpus.documents == ["山"] and corpus.files[0].dropped == 3


# ---------------------------------------------------------------- folders


def test_folders_in_natural_order(tmp_path: Path) -> None:
    for name in ("file10.json", "file2.json", "file1/b.jsonl", "file3/x.txt", "Ab.txt"):
        write(tmp_path, name, [name] if name.endswith(".json") else json.dumps(name))
    for name in (
        ".hidden.json",
        ".git/a.json",
        "notes.md",
        "LICENSE.txt",
        "licenses/MIT.txt",
        "readme.zh.txt",
    ):
        write(tmp_path, name, "not json")
    corpus = read_corpus(tmp_path)
    read = [os.path.relpath(file.path, tmp_path) for file in corpus.files if not file.skipped]
    assert read == ["Ab.txt", "file1/b.jsonl", "file2.json", "file3/x.txt", "file10.json"]
    skipped = [os.path.relpath(file.path, tmp_path) for file in corpus.files if file.skipped]
    assert sorted(skipped) == ["LICENSE.txt", "licenses", "notes.md", "readme.zh.txt"]
    assert corpus.documents[1:3] == ["file1/b.jsonl", "file2.json"]
    named = read_corpus([tmp_path, tmp_path / "LICENSE.txt", tmp_path / "file2.json"])
    assert named.documents == [*corpus.documents, "not json"]  # a file twice is read once


def test_fingerprint_is_of_the_contents(tmp_path: Path) -> None:
    first = write(tmp_path, "a/x.json", ["山"])
    second = write(tmp_path, "b/y.json", ["山"])
    third = write(tmp_path, "c/x.json", ["水"])
    assert read_corpus(first).fingerprint == read_corpus(second).fingerprint
    assert read_corpus(first).fingerprint != read_corpus(third).fingerprint
    assert read_corpus([first, third]).fingerprint != read_corpus([third, first]).fingerprint
    digest = hashlib.sha256(hashlib.sha256(first.read_bytes()).digest()).hexdigest()
    assert read_corpus(first).fingerprint == digest


def test_texts_are_all_texts(tmp_path: Path) -> None:
    assert read_corpus(write(tmp_path, "a.json", ["山", MESSAGES])).texts() == [
        "山",
        "你好",
        "你好！",
    ]


# ---------------------------------------------------------------- refusals


def spoken(*pairs: tuple[Any, Any]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (
            "a.json",
            '["a",\n"你好"]'.encode("gbk"),
            r"line 2: found byte 0xC4 at byte 2 .*GBK.*iconv",
        ),
        (
            "a.txt",
            "ok\n山".encode() + "你好".encode("gbk"),
            r"line 2: found byte 0xC4 at byte 4 of",
        ),
        ("a.txt", b"\xef\xbb\xbfok\nab\xff\xff", r"line 2: found byte 0xFF at byte 3 of"),
        ("a.txt", "山".encode("utf-16"), r"line 1: found byte 0xFF .*UTF-16"),
        ("a.json", '["山",\n "水"', r"line 2, column 5: broken JSON .*, found the end"),
        ("a.json", '["山",\n {x}]', r"line 2, column 3: broken JSON .*, found 'x\}\]'"),
        ("a.json", jsonl(MESSAGES, MESSAGES), r"line 2, column 1: broken JSON.*\.jsonl"),
        ("a.jsonl", jsonl("山") + '{"text": }\n', r"line 2, column 10: broken JSON"),
        ("a.json", "[" * 100_000, r"JSON that cannot be read"),
        ("a.json", "[" + "1" * 5000 + "]", r"JSON that cannot be read|found the number"),
        ("a.json", '"山"', r"found a string, expected a list"),
        ("a.json", "7", r"found the number 7, expected a list"),
        ("a.json", {"a": 1}, r"found an object with the keys 'a', expected a list"),
        ("a.json", {"a": ["x"], "b": ["y"]}, r"found an object with the keys 'a', 'b'"),
        ("a.json", ["山", 3], r"item 2 \(line 1\): found the number 3"),
        ("a.json", '["a\\n]",\n\n  {"b": [1,\n2]}\n ]', r"item 2 \(line 3\): found an object with"),
        ("a.json", "\n[\n\n[]]", r"item 1 \(line 4\): found a list"),
        ("a.json", {"data": ["山", None]}, r"item 2: found nothing"),
        ("a.json", [{"text": 3}], r"found the number 3 under 'text'"),
        ("a.jsonl", jsonl("山") + "\n" + jsonl([1]), r"line 3: found a list"),
        ("a.json", [{"messages": "x"}], r"found a string under 'messages'"),
        ("a.json", [{"messages": []}], r"no messages"),
        ("a.json", [{"messages": ["x"]}], r"message 1 is a string"),
        ("a.json", [{"messages": [{"role": "user"}]}], r"message 1 has the keys 'role', expected"),
        ("a.json", [spoken(("user", 1), ("assistant", "a"))], r"message 1 has the number 1 as its"),
        ("a.json", [spoken(("user", None), ("assistant", "a"))], r"message 1 has nothing as its"),
        (
            "a.json",
            [spoken(("user", "a"), ("assistant", " \n"))],
            r"message 2 \(assistant\) is empty",
        ),
        (
            "a.json",
            [spoken(("user", "a"), ("bot", "b"))],
            r"message 2 has the role 'bot', expected",
        ),
        ("a.json", [spoken((3, "a"), ("assistant", "b"))], r"message 1 has the role 3"),
        (
            "a.json",
            [spoken(("assistant", "a"))],
            r"message 1 is from the assistant, expected the user",
        ),
        ("a.json", [spoken(("user", "a"), ("user", "b"))], r"message 2 is from the user, expected"),
        ("a.json", [spoken(("user", "a"))], r"the last message is from the user"),
        ("a.json", [spoken(("system", "a"))], r"the last message is from the system"),
        ("a.json", [spoken(("user", "a"), ("system", "b"))], r"message 2 is from the system"),
        ("a.json", [{"conversations": [{"from": "tool", "value": "x"}]}], r"no messages, expected"),
        (
            "a.json",
            [{"instruction": "a", "output": ""}],
            r"item 1 \(line 1\): message 2 .* is empty",
        ),
        ("a.json", [{"instruction": "a"}], r"found nothing under 'output'"),
        ("a.json", [{"instruction": "a", "input": [1], "output": "b"}], r"a list under 'input'"),
        ("a.json", [{"instruction": "a", "output": "b", "history": ["x"]}], r"'history' must be"),
        ("a.json", ["用户：助手：好"], r"item 1 \(line 1\): message 1 \(user\) is empty"),
        ("a.txt", "山\n\n\n用户：好\n助手：", r"line 4: message 2 \(assistant\) is empty"),
        ("a.json", [], r"no usable document"),
        ("a.json", ["", " "], r"no usable document"),
        ("a.json", b"", r"the file is empty"),
        ("a.txt", b"\xef\xbb\xbf \n\n", r"the file is empty"),
        ("a.doc", "x", r"the name must end in \.json, \.jsonl, \.txt"),
    ],
)
def test_what_cannot_be_used_is_named(
    tmp_path: Path, name: str, content: Any, expected: str
) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(DataError, match=expected) as caught:
        read_corpus([path])
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message and len(message) < 600
    assert caught.value.code == "data"


def test_missing_and_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"none\.json: no such file"):
        read_corpus([tmp_path / "none.json"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no data in this folder, expected .*\.json"):
        read_corpus(tmp_path / "empty")
    with pytest.raises(DataError, match="no data: name"):
        read_corpus([])
    path = write(tmp_path, "a.json", ["山"])

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(DataError, match=r"a\.json: cannot be read \(Permission denied\)"):
        read_corpus(path)
    monkeypatch.setattr("os.listdir", refuse)
    with pytest.raises(DataError, match=r"cannot be read \(Permission denied\)"):
        read_corpus(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(DataError, match="not a regular file"):
        read_corpus(tmp_path)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the sample data ../shared/data is not here")
def test_all_sample_data_loads() -> None:
    corpus = read_corpus(SHARED)
    read = {
        Path(file.path).relative_to(SHARED).as_posix(): file
        for file in corpus.files
        if not file.skipped
    }
    every = {path.relative_to(SHARED).as_posix() for path in SHARED.rglob("*.json*")}
    assert set(read) == every and all(file.dropped == 0 for file in read.values())
    for name, file in read.items():
        talks = name.startswith(("chat_", "rustgpt-2025/chat_", "rustgpt-2026/chat/"))
        assert (file.dialogues > 0) == talks and (file.documents > 0) != talks, name
    assert read["rustgpt-2025/chat_training_data.json"].dialogues == 125
    assert read["chat_small.jsonl"].dialogues == 220
    assert read["pretraining_law.json"].documents == 1995
    assert not any(
        "助手：" in message.content or "User:" in message.content
        for dialogue in corpus.dialogues
        for message in dialogue
    )
    for path in SHARED.rglob("*.txt"):
        assert read_corpus(path).documents


def test_packaged_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "cgpt.corpus.files.__file__", str(tmp_path / "cgpt" / "corpus" / "files.py")
    )
    names = "pretraining_data.json", "chat_training_data.json"
    with pytest.raises(DataError, match="missing"):
        packaged_data()
    for folder in "data", "cgpt/_data":  # a source tree; a wheel, which comes first
        expected = tuple(write(tmp_path, f"{folder}/{name}", ["山"]) for name in names)
        assert packaged_data() == expected


# ---------------------------------------------------------------- tokens


def names(ids: Any) -> list[str]:
    return [TOKENIZER.words[token] if token >= 0 else "-" for token in ids]


def test_document_sample() -> None:
    sample = encode_document(TOKENIZER, "山水再见")
    assert names(sample.ids) == ["<bos>", "山", "水", "再见"]
    assert names(sample.targets) == ["山", "水", "再见", "<eos>"]
    assert sample.ids.dtype == sample.targets.dtype == np.int32


def test_dialogue_sample_learns_the_answers_only() -> None:
    sample = encode_dialogue(TOKENIZER, turns("你", "好！", "山", "水", system="见"))
    assert names(sample.ids) == [
        "<bos>",
        "<system>",
        "见",
        "<user>",
        "你",
        "<assistant>",
        "好",
        "！",
        "<eos>",
        "<user>",
        "山",
        "<assistant>",
        "水",
    ]
    assert names(sample.targets) == ["-"] * 5 + ["好", "！", "<eos>"] + ["-"] * 3 + ["水", "<eos>"]
    assert sample.ids.dtype == sample.targets.dtype == np.int32


def test_prompt_is_the_start_of_the_dialogue() -> None:
    dialogue = turns("你", "好！", "山", "水", system="见")
    ids = encode_prompt(TOKENIZER, dialogue[:-1])
    assert ids == list(encode_dialogue(TOKENIZER, dialogue).ids[: len(ids)])
    assert names(encode_prompt(TOKENIZER, turns("你"))) == ["<bos>", "<user>", "你", "<assistant>"]
    for wrong in (), dialogue, dialogue[1:][1:3]:
        with pytest.raises(DataError, match="dialogue: "):
            encode_prompt(TOKENIZER, wrong)
    with pytest.raises(DataError, match="the last message is from the user"):
        encode_dialogue(TOKENIZER, turns("你"))


def sample_of(size: int, learnt: Any = True) -> Sample:
    ids = np.arange(size, dtype=np.int32)
    return Sample(ids, np.where(learnt, ids + 1, -1).astype(np.int32))


def test_split_samples() -> None:
    windows = split_samples([sample_of(7), sample_of(3), sample_of(6, np.arange(6) > 3)], 3)
    assert [window.ids.tolist() for window in windows] == [
        [0, 1, 2],
        [3, 4, 5],
        [6],
        [0, 1, 2],
        [3, 4, 5],
    ]
    assert windows[-1].targets.tolist() == [-1, 5, 6]


@given(st.lists(st.integers(0, 12), max_size=20), st.integers(1, 20))
@settings(max_examples=100, deadline=None)
def test_packing_keeps_everything_in_order(sizes: list[int], room: int) -> None:
    samples = [sample_of(size, np.arange(size) % 3 > 0) for size in sizes]
    batches = pack(samples, room)
    kept = [sample for sample in samples if len(sample)]
    assert sum(len(batch.offsets) - 1 for batch in batches) == len(kept)
    cut = [
        (batch.ids[a:b].tolist(), batch.targets[a:b].tolist(), batch.positions[a:b].tolist())
        for batch in batches
        for a, b in zip(batch.offsets, batch.offsets[1:], strict=False)
    ]
    assert cut == [(s.ids.tolist(), s.targets.tolist(), list(range(len(s)))) for s in kept]
    for batch, following in zip(batches, [*batches, None][1:], strict=True):
        size = len(batch.ids)
        assert size <= room or len(batch.offsets) == 2
        assert following is None or size + int(following.offsets[1]) > room  # filled as it came
        assert batch.counted == np.count_nonzero(batch.targets >= 0)
        assert batch.offsets[0] == 0 and batch.offsets[-1] == size
        assert {
            part.dtype for part in (batch.ids, batch.targets, batch.offsets, batch.positions)
        } == {np.dtype(np.int32)}
