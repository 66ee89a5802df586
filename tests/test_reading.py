"""Large files give what small ones give; duplicates, counts, and the same sentences for faults."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cgpt.corpus import reader, text_rows
from cgpt.corpus._digest_set import Seen
from cgpt.corpus.reader import Reading, fingerprint_of, read_corpus
from cgpt.errors import DataError

MESSAGES = {
    "messages": [{"role": "user", "content": "问？"}, {"role": "assistant", "content": "答。\n好"}]
}
ITEMS = [
    "山",
    MESSAGES,
    {"text": "水\r\n流"},
    "",
    {"instruction": "说", "output": "好"},
    "😀" * 40,
    "用户：你好助手：好",
    "山",
    MESSAGES,
]


def write(folder: Path, name: str, content: object) -> Path:
    path = folder / name
    if isinstance(content, list):
        content = (
            json.dumps(content, ensure_ascii=False, indent=1)
            if name.endswith(".json")
            else "\n".join(json.dumps(item, ensure_ascii=False) for item in content)
        )
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.fixture(params=[1, 7, 1 << 20])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """So many characters are read at a time."""
    monkeypatch.setattr(text_rows, "_CHUNK", request.param)
    return request.param


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", ITEMS),
        ("a.jsonl", ITEMS),
        ("b.json", json.dumps(ITEMS)),
        ("c.json", '\ufeff [ \n"a" , "b"\n] \n'),
        ("d.jsonl", b"\xef\xbb\xbf" + b'"a"\r\n\r\n"b"'),
        ("a.txt", "  山\r\n高 \r\r水\n \n\n河\n流"),
        ("b.txt", "\ufeff山"),
        ("c.txt", "a\u2028b\n\nc\x0b"),
        ("e.json", json.dumps({"data": ITEMS})),
    ],
)
def test_large_files_give_the_same(name: str, content: object, chunk: int, tmp_path: Path) -> None:
    path = write(tmp_path, name, content)
    for unique in False, True:
        whole, parts = (Reading(path, unique=unique, large=large) for large in (1 << 30, 0))
        assert list(parts) == list(whole)
        assert (parts.files, parts.fingerprint) == (whole.files, whole.fingerprint)
    assert fingerprint_of([path]) == whole.fingerprint


def test_a_text_without_blank_lines_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in reader, text_rows:
        monkeypatch.setattr(module, "LONGEST_TEXT", 5)
    path = write(tmp_path, "a.txt", "一二\n三四\n五六\n七八\n\n一二三四五六七八\n九\n\n十\n")
    assert list(Reading(path, large=0)) == [
        "一二\n三四\n五六",
        "七八",
        "一二三四五",
        "六七八\n九",
        "十",
    ]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1))
@settings(max_examples=50, deadline=None)
def test_any_list_of_texts(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    folder = tmp_path_factory.mktemp("any")
    texts = [*texts, "山"]
    for name in "a.json", "a.jsonl":
        path = write(folder, name, texts)
        assert list(Reading(path, large=0)) == list(Reading(path)) != []


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.json", '["a",\n 3]', "a.json, item 2 (line 2): found the number 3"),
        ("a.jsonl", '"a"\n{"x": 1}', "a.jsonl, line 2: found an object with the keys 'x'"),
        ("a.jsonl", '"a"\n{"x', "a.jsonl, line 2, column 2: broken JSON"),
        (
            "a.json",
            '["a",\n"b" "c"]',
            "a.json, line 2: JSON that cannot be read (expected ',' or ']'",
        ),
        ("a.json", '["a",\n"b"', "a.json, line 2: JSON that cannot be read"),
        ("a.json", '["a", tru', "a.json, line 1: JSON that cannot be read"),
        ("a.json", '["a"] 1', "something behind the end"),
        ("a.json", '{"a": 1}', "expected a list of items"),
        ("a.json", "  ", "the file is empty"),
        ("a.json", "[" * 100000, "JSON that cannot be read"),
        ("a.json", '["a",\n 12]', "item 2 (line 2): found the number 12"),
        (
            "a.txt",
            "山\n".encode() + b"b\xff",
            "a.txt, line 2: found byte 0xFF at byte 2 of the line",
        ),
        ("a.jsonl", b'\xef\xbb\xbf"a"\n"\xe5"', "a.jsonl, line 2: found byte 0xE5 at byte 2"),
        ("a.txt", " \n\n", "the file is empty"),
        ("a.json", '["", " "]', "no usable document"),
    ],
)
def test_faults_of_large_files(
    name: str, content: str | bytes, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_rows, "_CHUNK", 3)
    path = write(tmp_path, name, content)
    with pytest.raises(DataError) as caught:
        list(Reading(path, large=0))
    assert sentence in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize(
    "content", ['["a"\x1c]', '["a",\u00a0"b"]', '\u3000["a"]', '["a"]\u2028', "[\x0b]", '["a"]\x85']
)
def test_only_the_blanks_of_json_stand_between_items(content: str, tmp_path: Path) -> None:
    path = write(tmp_path, "a.json", content)
    for large in 0, 1 << 30:
        with pytest.raises(DataError, match="JSON"):
            list(Reading(path, large=large))


def test_duplicates_are_counted_by_file(tmp_path: Path) -> None:
    first, second = write(tmp_path, "a.json", ITEMS), write(tmp_path, "b.jsonl", ["水\r\n流", "新"])
    corpus = read_corpus([first, second], unique=True)
    assert corpus.documents == ["山", "水\r\n流", "😀" * 40, "新"] and len(corpus.dialogues) == 3
    assert [
        (one.documents, one.dialogues, one.dropped, one.duplicates) for one in corpus.files
    ] == [(3, 3, 1, 2), (1, 0, 0, 1)]
    assert corpus.files[1].characters == 1
    assert corpus.files[0].bytes == first.stat().st_size
    again = read_corpus([first, second])
    assert len(again.documents) == 6 and not any(one.duplicates for one in again.files)
    # A file of nothing but duplicates is no fault.
    third = write(tmp_path, "c.json", ["新"])
    assert read_corpus([second, third], unique=True).files[1].duplicates == 1


def test_a_text_is_no_duplicate_of_a_dialogue(tmp_path: Path) -> None:
    text = "user\0问？\0assistant\0答。\n好"
    assert len(list(Reading(write(tmp_path, "a.json", [text, MESSAGES]), unique=True))) == 2


def test_seen() -> None:
    seen = Seen()
    digests = [number.to_bytes(16, "little") for number in range(2, 20000, 2)]
    assert all(map(seen.add, digests)) and not any(map(seen.add, digests))
    assert len(seen) == len(digests)
    with pytest.raises(ValueError, match="expected 16"):
        seen.add(b"x")
