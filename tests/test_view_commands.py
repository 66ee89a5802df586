"""`plot`, `inspect`, `eval` with several models, and runs that are repeated from a TOML."""

from __future__ import annotations

import json
import math
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from screen import Screen
from small_llm import DIALOGUES, FACTS, TEXTS, small_llm
from test_cli import MODEL, TRAIN, Run, place, run, same_model, stop_at, trained, write_data

from cgpt.checkpoint.saving import save_model_binary
from cgpt.cli.commands import inspect
from cgpt.cli.commands.plot import picture_lines
from cgpt.cli.ui.layout import text_width
from cgpt.config import RunConfig, TrainConfig
from cgpt.errors import ConfigError, DataError
from cgpt.evaluation.answers import accuracy, answer, plain
from cgpt.evaluation.perplexity import (
    DocumentScore,
    difference,
    evaluate,
    score_documents,
    total_of,
)
from cgpt.evaluation.predictions import predictions
from cgpt.llm import load_model_auto
from cgpt.training.config_file import check_fingerprint, repeated, to_toml
from cgpt.training.run import continue_training
from cgpt.training.step_log import Curve
from cgpt.training.trainer import Trainer

__all__ = ["place", "run", "trained"]  # fixtures
pytestmark = pytest.mark.usefixtures("clean_environment")

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@pytest.fixture(scope="module")
def font(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A font whose letters are blank squares, for every character of the texts in this file."""
    from fontTools import fontBuilder as builder
    from fontTools.pens import ttGlyphPen as pens

    characters = sorted(
        {
            *(chr(i) for i in range(32, 127)),
            *"".join(TEXTS),
            *"运行",
            *"预训练微调步损失词验证被关注的当前注意力权重第层，各头平均",
        }
    )
    names = [".notdef", *(f"c{ord(char):x}" for char in characters)]
    pen = pens.TTGlyphPen(None)
    for move, point in (("moveTo", (0, 0)), ("lineTo", (0, 500)), ("lineTo", (500, 500))):
        getattr(pen, move)(point)
    pen.closePath()
    made = builder.FontBuilder(1000, isTTF=True)
    made.setupGlyphOrder(names)
    made.setupCharacterMap(
        {ord(name_of): name for name_of, name in zip(characters, names[1:], strict=True)}
    )
    made.setupGlyf(dict.fromkeys(names, pen.glyph()))
    made.setupHorizontalMetrics(dict.fromkeys(names, (600, 0)))
    made.setupHorizontalHeader(ascent=800, descent=-200)
    made.setupNameTable({"familyName": "Test Song", "styleName": "Regular"})
    made.setupOS2()
    made.setupPost()
    path = tmp_path_factory.mktemp("font") / "song.ttf"
    made.save(path)
    return path


@contextmanager
def no_missing_letters() -> Iterator[None]:
    """matplotlib warns where it draws a box in place of a letter: an error here."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# ---- plot ----------------------------------------------------------------------------------


def test_plot_in_the_terminal(run: Run, place: Path) -> None:
    assert (
        run(
            *TRAIN,
            "--max-steps",
            "6",
            "--seed",
            "4",
            "--log",
            "运行.jsonl",
            "--out",
            "b.bin",
            "--val-fraction",
            "0.2",
        )[0]
        == 0
    )
    code, out, err = run("plot", "运行.jsonl", MODEL, "b.bin")
    assert (code, err) == (0, "")
    assert out.count("│") == 2 * 3 * 12, "off a terminal a chart a run and phase"
    assert all(text_width(line) < 80 for line in out.splitlines())
    rows = [line for line in out.splitlines() if line.startswith("运行 ") and "." in line]
    first, other = ([float(cell) for cell in row.split()[1:]] for row in rows)
    logged = [json.loads(line) for line in Path("运行.jsonl").read_text().splitlines()[1:]]
    assert first[:2] == [6, round(logged[0]["loss"], 4)] and other[0] == 6
    assert len({text_width(line.rpartition(" ")[0]) for line in rows}) == 1
    code, out, _ = run("plot", "运行.jsonl", "b.bin", "--json")
    one, two = json.loads(out)["runs"]
    assert one["curves"] == two["curves"], "a log and the history of its model say the same"
    assert one["curves"][0]["steps"] == [1, 2, 3, 4, 5, 6] and one["curves"][0]["held_out"]


@pytest.mark.parametrize(("columns", "language"), [(80, "zh"), (40, "en")])
def test_plot_and_inspect_at_a_terminal(place: Path, columns: int, language: str) -> None:
    shutil.copy(place / MODEL, place / "other.bin")
    for args in (
        ("plot", MODEL, "other.bin"),
        ("inspect", MODEL, "长江有多长，天空是蓝色的"),
        ("eval", MODEL, "other.bin", "texts.json", "chats.jsonl", "--compare", "int8"),
    ):
        with Screen(*args, "--lang", language, cwd=place, columns=columns) as screen:
            assert screen.end() == 0
        lines = screen.text.replace("\r", "").split("\n")
        assert len(lines) > 5 and all(text_width(line) <= columns for line in lines), args
        if args[0] == "plot":
            assert b"\x1b[34m" in screen.raw and b"\x1b[31m" in screen.raw
            assert sum("│" in line for line in lines) == 2 * 12, "both runs in one chart"


def test_a_run_alone_shows_its_held_out_losses() -> None:
    curve = Curve("pretrain", [1, 2, 3, 4], [4.0, 3.0, 2.0, 1.0], [(2, 5.0), (4, 5.5)])
    for coloured, top in ((True, 5.5), (False, 4.0)):
        title, first, *_ = picture_lines("pretrain", [("运行", curve)], 39, coloured=coloured)
        assert text_width(title.plain) <= 39 and ("验证" in title.plain) == coloured
        assert float(first.plain.split()[0]) == top
        assert {span.style for span in first.spans} - {""} == {"red" if coloured else "blue"}
    title, first, *_ = picture_lines("pretrain", [("a", curve), ("b", curve)], 39, coloured=True)
    assert "验证" not in title.plain and float(first.plain.split()[0]) == 4.0


def test_plot_as_a_picture(run: Run, place: Path, font: Path) -> None:
    shutil.copy(MODEL, "运行.bin")
    with no_missing_letters():
        code, out, err = run("plot", MODEL, "运行.bin", "-o", "out/a.png", "--font", font)
        assert (code, out, err) == (0, "", "图已保存: out/a.png\n")
        assert run("plot", MODEL, "运行.bin", "-o", "b.svg", "--font", font)[0] == 0
        assert run("plot", MODEL, "运行.bin", "-o", "c.svg", "--font", font)[0] == 0
        assert run("plot", MODEL, "-o", "d.pdf", "--lang", "en")[0] == 0
    assert Path("out/a.png").read_bytes().startswith(b"\x89PNG")
    assert Path("b.svg").read_bytes() == Path("c.svg").read_bytes()
    for name, sentence in (("a.jpg", "应以 .png、.svg 或 .pdf 结尾"),):
        code, _, err = run("plot", MODEL, "-o", name)
        assert code == 2 and sentence in err
    code, _, err = run("plot", MODEL, "-o", "a.png", "--font", MODEL)
    assert code == 1 and "不是可读的字体" in err


def test_without_chinese_letters_the_labels_are_english(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cgpt.plots.fonts.installed", lambda: [])
    shutil.copy(MODEL, "运行.bin")
    with no_missing_letters():
        code, _, err = run("plot", MODEL, "运行.bin", "-o", "a.svg")
        assert code == 0 and "没有找到中文字体" in err and "#2 = 运行" in err
        code, _, err = run("inspect", MODEL, "长江ab", "-o", "b.png")
        assert code == 0 and "没有找到中文字体" in err and "#2 = 长" in err
        code, _, err = run("plot", MODEL, "-o", "a.svg", "--overwrite", "--lang", "en")
        assert (code, err) == (0, "picture saved: a.svg\n")


def test_placeholders_are_no_letters(font: Path) -> None:
    from cgpt.plots.fonts import find_font, installed

    assert not [one.name for one in installed() if "resort" in one.name.lower()]
    found = find_font(["损失"], str(font))
    assert found.family[0] == "Test Song" and found.covers("损失 a")
    assert not found.covers("\u4e02")


def test_a_picture_that_exists_is_not_replaced_unasked(run: Run, place: Path) -> None:
    pytest.importorskip("matplotlib")
    for command in (["plot", MODEL], ["inspect", MODEL, "长江"]):
        path = place / "p.svg"
        path.write_text("mine", "utf-8")
        code, _, err = run(*command, "-o", str(path))
        assert code == 1 and "--overwrite" in err and path.read_text("utf-8") == "mine"
        assert run(*command, "-o", str(path), "--overwrite")[0] == 0
        assert "<svg" in path.read_text("utf-8")


def test_pictures_without_matplotlib_name_the_extra(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for args in (("plot", MODEL), ("inspect", MODEL, "长江")):
        code, _, err = run(*args, "-o", "a.png")
        assert code == 1 and "cgpt[plot]" in err and not Path("a.png").exists()


def test_what_cannot_be_plotted(run: Run, place: Path) -> None:
    save_model_binary(small_llm(), "new.bin")
    for path, sentence in (
        ("new.bin", "没有损失记录"),
        ("none.jsonl", "无法读取日志"),
        ("texts.json", "不是日志的一步"),
        ("none.bin", "不存在"),
    ):
        code, out, err = run("plot", path)
        assert (code, out) == (1, "") and sentence in err and path in err


# ---- inspect -------------------------------------------------------------------------------


def test_predictions_are_those_of_the_model() -> None:
    llm = small_llm()
    ids = [llm.tokenizer.bos_id, *llm.tokenizer.encode("长江有多长")]
    found = predictions(llm.gpt, ids, top=3)
    logits = llm.gpt.inspect(ids).logits.astype(np.float64)
    odds = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    score = llm.score("长江有多长")
    assert [one.id for one in found] == [*ids[1:], -1]
    for i, one in enumerate(found):
        assert [token for token, _ in one.alternatives] == np.argsort(-odds[i])[:3].tolist()
        assert one.alternatives[0][1] == pytest.approx(odds[i].max(), rel=1e-4)
        if i < len(found) - 1:
            assert math.log(one.probability) == pytest.approx(score.logprobs[i], abs=1e-4)
            assert one.rank == 1 + (odds[i] > odds[i][one.id]).sum()
    assert math.isnan(found[-1].probability)


def test_inspect(run: Run, place: Path, font: Path) -> None:
    code, out, err = run("inspect", MODEL, "长江 有\n多长", "--top", "2")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["词", "概率", "名次", "最可能的词"]
    assert any(line.startswith("<0x20>") for line in lines)
    assert "(下一词)" in lines[-2] and lines[-1].startswith("共 ")
    code, out, _ = run("inspect", MODEL, "长江", "--json", "--top", "7")
    found = json.loads(out)
    assert len(found["next"]) == 7 and found["text"] == "长江"
    assert all(
        one["logprob"] == pytest.approx(math.log(one["probability"]))
        and one["alternatives"][0]["probability"] >= one["probability"]
        for one in found["tokens"]
    )
    for more in ((), ("--layer", "2"), ("--layer", "1", "--head", "2")):
        with no_missing_letters():
            code, _, err = run(
                "inspect", MODEL, "长江有多长", "-o", "a.png", "--overwrite", "--font", font, *more
            )
        assert (code, err) == (0, "图已保存: a.png\n")


@pytest.mark.parametrize(
    ("args", "code", "sentence"),
    [
        (("长江", "--layer", "1"), 2, "要与 -o FILE 一起用"),
        (("长江", "--head", "1", "-o", "a.png"), 2, "--head 要与 --layer 一起用"),
        (("长江", "--layer", "9", "-o", "a.png"), 1, "--layer 9 超出模型"),
        (("",), 1, "文本有 0 个词"),
        (("长" * 200,), 1, "文本有 200 个词，应为 1 到 127"),
    ],
)
def test_what_cannot_be_inspected(
    run: Run, place: Path, args: tuple[str, ...], code: int, sentence: str
) -> None:
    found, _, err = run("inspect", MODEL, *args)
    assert found == code and sentence in err


# ---- eval ----------------------------------------------------------------------------------


def test_documents_add_up_to_the_whole() -> None:
    llm = small_llm()
    documents = [*TEXTS, *DIALOGUES, "长江" * 100]
    scores = score_documents(llm, documents)
    whole = evaluate(llm, documents)
    found = total_of(scores)
    assert (found.tokens, found.characters, found.bytes) == (
        whole.tokens,
        whole.characters,
        whole.bytes,
    )
    assert found.loss == pytest.approx(whole.loss, rel=1e-6)
    for document, score in zip(documents, scores, strict=True):
        alone = evaluate(llm, [document])
        assert score.characters == alone.characters
        assert score.nats == pytest.approx(alone.loss * alone.tokens, rel=1e-5)
    with pytest.raises(DataError, match="no text to predict"):
        total_of([])


def test_differences_and_their_interval() -> None:
    scores = score_documents(small_llm(), TEXTS)
    better = [replace(one, nats=one.nats - 0.5 * one.characters) for one in scores]
    found = difference(scores, better)
    assert found.bits_per_character == pytest.approx(-0.5 / math.log(2))
    assert found.low == pytest.approx(found.high) and found.better == found.documents == 6
    rng = np.random.default_rng(0)
    noisy = [replace(one, nats=one.nats + rng.normal(0, 3)) for one in scores * 50]
    wide = difference(scores * 50, noisy)
    share = 3 / math.log(2) * math.sqrt(300) / sum(one.characters for one in scores * 50)
    assert (wide.high - wide.low) / 2 == pytest.approx(1.96 * share, rel=0.15)
    assert difference(scores[:1], better[:1]).low is None
    two = [DocumentScore(math.log(2) * bits, 9, 10, 30) for bits in (40, 60)]
    found = difference(two, [replace(two[0], nats=math.log(2) * 44), two[1]])
    assert found.bits_per_character == pytest.approx(0.2) and found.relative == pytest.approx(0.04)
    assert found.high - 0.2 == pytest.approx(1.96 * math.sqrt(2 * (2 * 2**2)) / 20)
    with pytest.raises(DataError, match="other documents"):
        difference(scores, scores[::-1])


def test_answers_are_compared_as_people_would() -> None:
    assert plain(" Ａbc 你 好。") == "abc你好" and plain("。") == "。"
    llm = small_llm()
    Trainer(llm, TrainConfig(epochs=60, batch_tokens=256, lr=1e-2, warmup=5), "finetune").fit(
        DIALOGUES
    )
    found = list(answer(llm, DIALOGUES, 32))
    assert [one.question for one in found] == [question for question, _ in FACTS]
    assert accuracy(found).exact == 1 == accuracy(found).contains
    assert [one.found for one in found] == [reply for _, reply in FACTS]
    short = [
        (dialogue[0], replace(dialogue[1], content=dialogue[1].content[:3]))
        for dialogue in DIALOGUES
    ]
    cut = accuracy(list(answer(llm, short, 32)))
    assert cut.exact < 0.5 and cut.contains == 1
    assert len(list(answer(llm, DIALOGUES, 32, most=2))) == 2
    with pytest.raises(DataError, match="no question"):
        accuracy([])


def test_eval_of_several_models(run: Run, place: Path) -> None:
    assert run("export", MODEL, "b.json", "--weights-only")[0] == 0
    code, out, err = run(
        "eval", MODEL, "b.json", "texts.json", "chats.jsonl", "--accuracy", "--max-new-tokens", "8"
    )
    assert (code, err) == (0, "")
    tables = out.split("\n\n")
    assert tables[0].startswith("每字符比特数，按文件\n文件") and "chats.jsonl" in tables[0]
    assert all(label in tables[1] for label in ("困惑度", "完全一致", "问题数"))
    code, out, _ = run(
        "eval",
        MODEL,
        "b.json",
        "texts.json",
        "chats.jsonl",
        "--json",
        "--compare",
        "int8",
        "--answers",
        "answers.jsonl",
        "--max-questions",
        "3",
    )
    found = json.loads(out)
    one, other, rounded = found["models"]
    assert one["loss"] == other["loss"] != rounded["loss"]
    assert one["files"][0]["bits_per_character"] == other["files"][0]["bits_per_character"]
    same, changed = found["compared"]
    assert same["bits_per_character"] == 0 and same["model"] == "b.json"
    assert changed["bits_per_character"] == pytest.approx(
        rounded["bits_per_character"] - one["bits_per_character"]
    )
    assert changed["low"] <= changed["bits_per_character"] <= changed["high"]
    answers = list(map(json.loads, Path("answers.jsonl").read_text().splitlines()))
    assert len(answers) == 9 and answers[0]["expected"] == FACTS[0][1]
    assert one["accuracy"]["questions"] == 3


@pytest.mark.parametrize(
    ("args", "code", "sentence"),
    [
        ((MODEL,), 2, "缺少 PATH..."),
        (("texts.json", "--compare", "no.bin"), 1, "no.bin 不存在"),
        (("texts.json", "--accuracy"), 1, "没有问题"),
        (("no.bin", "texts.json"), 1, "no.bin 不存在"),
        (("texts.json", "--answers", "no/a.jsonl"), 1, "no/a.jsonl"),
    ],
)
def test_what_cannot_be_evaluated(
    run: Run, place: Path, args: tuple[str, ...], code: int, sentence: str
) -> None:
    found, out, err = run("eval", MODEL, *args)
    assert (found, out) == (code, "") and sentence in err


# ---- repeating a run -----------------------------------------------------------------------


def test_a_run_is_repeated_to_the_bit_from_its_toml(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(tmp_path)
    args = (
        *TRAIN,
        "--max-steps",
        "5",
        "--seed",
        "11",
        "--dropout",
        "0.2",
        "--val-fraction",
        "0.2",
        "--freeze-attn",
        "--batch-size",
        "1",
        "--lr",
        "0.004",
        "--tokenizer",
        "chars",
        "--schedule",
        "wsd",
        "--ema",
        "0.9",
        "--label-smoothing",
        "0.1",
    )
    with monkeypatch.context() as patch:
        stop_at(patch, 3, "finetune")
        assert run(*args, "--out", "a.bin")[0] == 130
    assert run("resume")[0] == 0
    code, out, err = run("info", "a.bin", "--toml")
    assert (code, err) == (0, "") and "# numpy: " in out and 'preset = "tiny"' in out
    Path("run.toml").write_text(out)
    assert run("train", "--config", "run.toml", "--out", "b.bin")[0] == 0
    same_model(tmp_path / "a.bin", tmp_path / "b.bin")
    one, two = load_model_auto("a.bin"), load_model_auto("b.bin")
    assert one.training_state.run == two.training_state.run
    assert one.training_state.history == two.training_state.history
    assert run("info", "b.bin", "--toml")[1] == out
    code, _, err = run("train", "--config", "run.toml", "--lr", "0.001", "--out", "c.bin")
    other = load_model_auto("c.bin").training_state.run
    assert code == 0 and other["finetune_train"]["lr"] == 0.001
    assert other["finetune_train"]["freeze"] == ["h.*.attn.*"] and other["seed"] == 11


def test_other_data_is_not_a_repetition(run: Run, tmp_path: Path) -> None:
    write_data(tmp_path)
    assert run(*TRAIN, "--max-steps", "1")[0] == 0
    Path("run.toml").write_text(run("info", MODEL, "--toml")[1])
    Path("texts.json").write_text(json.dumps([*TEXTS, "山"]))
    code, _, err = run("train", "--config", "run.toml", "--overwrite")
    assert code == 1 and "数据与要重复的那次运行不同" in err
    lines = Path("run.toml").read_text().splitlines()
    Path("run.toml").write_text("\n".join(line for line in lines if "fingerprint" not in line))
    assert run("train", "--config", "run.toml", "--overwrite")[0] == 0
    with pytest.raises(DataError):
        check_fingerprint("a", "b")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[pretrain_train]\nlrr = 1", "TrainConfig: 未知的字段 'lrr'；是否想用 'lr'"),
        ("[finetune_train]\nlr = -1", "TrainConfig: lr"),
        ("pretrain_train = 3", "pretrain_train"),
    ],
)
def test_tables_that_cannot_be(run: Run, tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "run.toml").write_text(text)
    code, _, err = run("train", "--config", "run.toml")
    assert code == 1 and sentence in err and len(err.splitlines()) <= 2


def test_a_toml_reads_back_as_it_was() -> None:
    values = (
        RunConfig(
            pretrain=('a "b"\\c\n文.txt', "é"),
            seed=3,
            pretrain_train=TrainConfig(lr=3e-4, eps=1e-8, max_minutes=0.5),
        )
        .resolved(256)
        .to_dict()
    )
    assert tomllib.loads(to_toml({"x": {"a": {"k-1": 1.5}}, "b": True, "n": None}, {"c": "d"})) == {
        "b": True,
        "x": {"a": {"k-1": 1.5}},
    }
    found = tomllib.loads(to_toml(repeated(values, {}), {"version": "1"}))
    for name in ("pretrain_train", "finetune_train"):
        given = {key: value for key, value in values[name].items() if value is not None}
        assert {**found[name], "seed": 3} == given
    assert found["pretrain"] == values["pretrain"] and "vocab_size" not in found
    ended = {"pretrain": {"stopped": "budget", "steps": 17}}
    table = repeated(values, ended)["pretrain_train"]
    assert (table["max_steps"], table["max_minutes"]) == (17, 0.0)


def test_info_shows_history_versions_and_data(run: Run, place: Path) -> None:
    code, out, _ = run("info", MODEL)
    assert code == 0 and "made_with:" in out and "data_fingerprint" in out
    assert any(line.split()[0] == "预训练" and "▁" in line for line in out.splitlines() if line)
    code, _, err = run("info", "--toml")
    assert code == 2 and "--toml 需要 MODEL" in err
    save_model_binary(small_llm(), "new.bin")
    code, _, err = run("info", "new.bin", "--toml")
    assert code == 1 and "没有记录训练方式" in err
    llm = load_model_auto(MODEL)
    continue_training(llm, 1, 1e-4, chat=["chats.jsonl"])
    save_model_binary(llm, "further.bin")
    code, _, err = run("info", "further.bin", "--toml")
    assert code == 1 and "在另一个模型的权重上继续训练" in err


def test_a_resumption_that_changes_something_is_noted(run: Run, place: Path) -> None:
    assert run("resume", MODEL, "--epochs", "40", "--out", "b.bin")[0] == 0
    noted = load_model_auto("b.bin").metadata["resumed"]
    assert [(one["phase"], one["epochs"]) for one in noted] == [("finetune", 40)]
    assert "# resumed at finetune step 6: " in run("info", "b.bin", "--toml")[1]


def test_config_errors_are_told() -> None:
    with pytest.raises(ConfigError):
        RunConfig(pretrain_train=3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("probability", "shown"),
    [
        (0.5, "50.0%"),
        (0.001, "0.1%"),
        (0.00099, "0.099%"),
        (4.2e-5, "0.0042%"),
        (3e-7, "0.00003%"),
        (0.0, "<0.00001%"),
    ],
)
def test_probabilities_have_no_exponent(probability: float, shown: str) -> None:
    assert inspect.percent(probability) == shown
