"""The guided run word for word, through a pseudo-terminal and a pipe, and all its ways out."""

from __future__ import annotations

import io
import json
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import guided_text as guide
import pytest
from captured_output import Speaker
from screen import Screen, piped
from small_llm import FACTS

from cgpt.cli import main
from cgpt.cli.ui.layout import text_width
from cgpt.llm import load_model_auto

QUICK = ("--preset", "tiny", "--max-steps", "3")


def write_data(folder: Path) -> None:
    """data/*.json: a few sentences and dialogues."""
    (folder / "data").mkdir()
    texts = [question + "，" + answer for question, answer in FACTS]
    chats = [
        {
            "messages": [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
        }
        for question, answer in FACTS
    ]
    for name, value in (("pretraining_data", texts), ("chat_training_data", chats)):
        path = folder / "data" / f"{name}.json"
        path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/ and both checkpoints, made by a run at a terminal."""
    folder = tmp_path_factory.mktemp("trained")
    write_data(folder)
    done = piped(*QUICK, cwd=folder, answers="y\ny\n1\n\nexit\n")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def place(trained: Path, tmp_path: Path) -> Path:
    """A copy of that folder."""
    folder = tmp_path / "place"
    shutil.copytree(trained, folder)
    return folder


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A folder with data/ and no model."""
    write_data(tmp_path)
    return tmp_path


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vocabularies without jieba, whose dictionary takes a second to read."""
    monkeypatch.setattr("cgpt.tokenizers.vocabulary._jieba_cut", lambda: list)
    monkeypatch.delenv("CGPT_LANG", raising=False)


@pytest.fixture
def guided(
    fast: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """guided(folder, answers, *options) -> (exit code, what was shown), in this process."""

    def run(folder: Path, answers: str, *options: str) -> tuple[int, str]:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "stdin", io.StringIO(answers))
        code = main([*QUICK, *options])
        return code, capsys.readouterr().out

    return run


def same(shown: str, expected: str) -> None:
    """`shown` is `expected`, where <training> is any progress and <number> any number."""
    pattern = re.escape(expected).replace("<training>", r"(?s:\n.*?)").replace("<number>", r"\d+")
    if not re.fullmatch(pattern, shown):
        assert shown == expected


# ---- the four scenarios at a terminal ------------------------------------------------------


def test_scenario_1_train_at_a_terminal(fresh: Path) -> None:
    with Screen(*QUICK, cwd=fresh) as screen:
        screen.answer("是否保存预训练checkpoint? (y/n): ", "y")
        screen.answer("是否保存当前模型? (y/n): ", "y")
        screen.answer("请选择 (1/2/3): ", "1")
        screen.answer("文件名 (默认: checkpoints/model_final.bin): ", "")
        screen.expect("👤 用户: ")
        same(screen.text, guide.TRAIN)
        for phase in ("预训练", "微调"):
            assert re.search(rf"{phase} ━+ 100%.*\n轮 +3/\d+ +步 +3/3 +损失 \d", screen.text)
        screen.type("\x04")
        assert screen.end() == 0
    assert sorted(path.name for path in (fresh / "checkpoints").iterdir()) == [
        "model_final.bin",
        "model_pretrained.bin",
    ]
    assert (fresh / "exports").is_dir()


def test_scenarios_2_and_4_load_and_save_at_a_terminal(place: Path) -> None:
    with Screen(*QUICK, cwd=place) as screen:
        screen.answer("是否加载已有模型? (y/n): ", "y")
        screen.answer("请选择 (1/2): ", "1")
        screen.answer("是否继续训练此模型? (y/n): ", "n")
        screen.expect("👤 用户: ")
        same(screen.text, guide.SKIP)
        for path in (place / "checkpoints").iterdir():
            path.unlink()
        seen = len(screen.text)
        screen.type("save\r")
        screen.answer("请选择 (1/2/3): ", "3")
        screen.expect("👤 用户: ")
        assert screen.text[seen:] == guide.SAVE_BOTH
        screen.type("EXIT\r")
        assert screen.end() == 0
    model = json.loads((place / "exports/model_final.json").read_text())
    assert len(model["layers"]) == 5 and model["vocab"]["words"]


def test_scenario_3_continue_at_a_terminal(place: Path) -> None:
    with Screen(*QUICK, cwd=place) as screen:
        screen.answer("是否加载已有模型? (y/n): ", "y")
        screen.answer("请选择 (1/2): ", "1")
        screen.answer("是否继续训练此模型? (y/n): ", "y")
        screen.answer("训练轮数 (默认50): ", "3")
        screen.answer("学习率 (默认0.0001): ", "0.00005")
        screen.answer("是否保存当前模型? (y/n): ", "y")
        screen.answer("请选择 (1/2/3): ", "1")
        screen.answer("文件名 (默认: checkpoints/model_final.bin): ", "checkpoints/mine.bin")
        screen.expect("👤 用户: ")
        same(screen.text, guide.CONTINUE)
        screen.type("exit\r")
        assert screen.end() == 0
    assert (place / "checkpoints/mine.bin").exists()


def test_the_comparison_notices_one_letter(place: Path) -> None:
    with pytest.raises(AssertionError):
        same(guide.SKIP.replace("<number>", "1").replace("系统", "系統"), guide.SKIP)


# ---- and through a pipe --------------------------------------------------------------------


def test_scenario_1_through_a_pipe(guided: Callable[..., tuple[int, str]], fresh: Path) -> None:
    code, shown = guided(fresh, "y\ny\n1\n\n")
    assert code == 0
    same(shown, guide.TRAIN + "\n")


def test_scenario_2_through_a_pipe(place: Path) -> None:
    done = piped(*QUICK, cwd=place, answers="y\n1\nn\n")
    assert (done.returncode, done.stderr) == (0, "")
    same(done.stdout, guide.SKIP + "\n")


def test_scenario_3_through_a_pipe(guided: Callable[..., tuple[int, str]], place: Path) -> None:
    code, shown = guided(place, "y\n1\ny\n3\n0.00005\ny\n1\ncheckpoints/mine.bin\n")
    assert code == 0
    same(shown, guide.CONTINUE + "\n")


def test_scenario_4_through_a_pipe(guided: Callable[..., tuple[int, str]], place: Path) -> None:
    code, shown = guided(place, "y\n2\nn\n你好\nsave\n3\ny\n")
    assert code == 0
    both = guide.SAVE_BOTH.replace("3\n\n", "3\n\n" + OVERWRITE.format("model_final.bin") + "y\n")
    assert shown.endswith(both + "\n")
    assert "👤 用户: 你好\n🤖 模型: " in shown


OVERWRITE = "文件已存在，是否覆盖 checkpoints/{}? (y/n): "


# ---- choosing a model ----------------------------------------------------------------------


def test_every_loadable_file_is_listed(guided: Callable[..., tuple[int, str]], place: Path) -> None:
    final = place / "checkpoints/model_final.bin"
    shutil.copy(final, place / "checkpoints/我的模型.bin")
    (place / "checkpoints/notes.txt").write_text("no model")
    (place / "checkpoints/foreign.bin").write_bytes(b"PK\x03\x04" + bytes(100))
    assert main(["export", str(final), str(place / "exports/old.json")]) == 0
    code, shown = guided(place, "y\n4\nn\nexit\n")
    assert code == 0
    listed = re.findall(r"  ✓ (.*)\n", shown)
    assert listed[:2] == ["checkpoints/model_final.bin", "checkpoints/model_pretrained.bin"]
    assert set(listed[2:]) == {"checkpoints/我的模型.bin", "exports/old.json"}
    assert "请选择 (1/2/3/4): 4" in shown
    assert f"📂 正在加载模型: {listed[3]}..." in shown


def test_wrong_answers_are_told_and_asked_again(
    guided: Callable[..., tuple[int, str]], place: Path
) -> None:
    code, shown = guided(
        place, "\nmaybe\ny\n0\n3\n１\nq\ny\nabc\n0\n-1\n2\nx\n0\n2\nnan\n1e-3\nn\nexit\n"
    )
    assert code == 0
    assert shown.count("是否加载已有模型? (y/n): ") == 3
    assert shown.count("请选择 (1/2): ") == 3
    assert shown.count("请输入 y 或 n。") == 3
    assert shown.count("训练轮数 (默认50): ") == 4
    assert shown.count("学习率 (默认0.0001): ") == 5
    assert "开始继续训练 (2 epochs, lr=0.001)..." in shown


def test_damaged_file_is_named_and_leads_back_to_the_choice(
    guided: Callable[..., tuple[int, str]], place: Path
) -> None:
    path = place / "checkpoints/model_final.bin"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    code, shown = guided(place, "y\n1\n2\nn\nexit\n")
    assert code == 0
    assert "❌ 加载失败 (文件已损坏): " in shown and "checkpoints/model_final.bin" in shown
    assert shown.count("选择要加载的模型:") == 2
    assert "📂 正在加载模型: checkpoints/model_pretrained.bin..." in shown
    assert "练  轮" not in shown


def test_only_damaged_files_never_start_a_training(
    guided: Callable[..., tuple[int, str]], place: Path
) -> None:
    (place / "checkpoints/model_pretrained.bin").unlink()
    path = place / "checkpoints/model_final.bin"
    path.write_bytes(path.read_bytes()[:-1])
    code, shown = guided(place, "n\n")
    assert code == 0
    assert "  ✗ checkpoints/model_final.bin (文件已损坏)\n" in shown
    assert "练  轮" not in shown and "交互模式" not in shown
    code, shown = guided(place, "y\ny\nn\nexit\n")
    assert code == 0 and "练  轮" in shown


def test_declining_trains_anew_and_overwriting_is_asked(
    guided: Callable[..., tuple[int, str]], place: Path
) -> None:
    old = (place / "checkpoints/model_final.bin").read_bytes()
    code, shown = guided(place, "n\ny\nn\n\ny\n1\n\nn\n\nexit\n", "--seed", "7")
    assert code == 0
    assert "📝 将开始训练新模型..." in shown
    assert OVERWRITE.format("model_pretrained.bin") + "n\n" in shown
    assert "✓ 预训练checkpoint已保存: checkpoints/model_pretrained_2.bin" in shown
    assert OVERWRITE.format("model_final.bin") + "n\n" in shown
    assert "文件名 (默认: checkpoints/model_final_2.bin): " in shown
    assert "✅ 模型已保存: checkpoints/model_final_2.bin" in shown
    assert (place / "checkpoints/model_final.bin").read_bytes() == old


# ---- saving --------------------------------------------------------------------------------


def test_failed_save_says_why_and_asks_again(
    guided: Callable[..., tuple[int, str]], fresh: Path
) -> None:
    (fresh / "blocked").write_text("a file, no folder")
    code, shown = guided(fresh, "n\ny\n1\nblocked/model.bin\ny\n1\nkept/here.bin\nexit\n")
    assert code == 0
    assert shown.count("是否保存当前模型? (y/n): ") == 2
    assert re.search("❌ 保存失败: .*blocked", shown)
    assert "✅ 模型已保存: kept/here.bin" in shown
    assert load_model_auto(fresh / "kept/here.bin").training_state.step == 3


def test_any_name_is_honoured_in_the_format_chosen(
    guided: Callable[..., tuple[int, str]], fresh: Path
) -> None:
    code, shown = guided(fresh, "n\ny\n2\nmy model\nexit\n")
    assert code == 0
    assert "✅ 模型已保存: my model\n" in shown
    assert json.loads((fresh / "my model").read_text())["version"]


# ---- words of the chat ---------------------------------------------------------------------


CHAT = "y\n1\nn\n"  # load the first model, do not train it


@pytest.mark.parametrize(
    ("kind", "name", "saved"),
    [
        ("1", "mine.bin", "checkpoints/mine.bin"),
        ("1", "我的", "checkpoints/我的"),
        ("2", "mine.json", "exports/mine.json"),
        ("1", "./mine.bin", "./mine.bin"),
        ("1", "kept/mine.bin", "kept/mine.bin"),
    ],
)
def test_save_in_the_chat_puts_a_bare_name_where_it_is_found_again(
    guided: Callable[..., tuple[int, str]], place: Path, kind: str, name: str, saved: str
) -> None:
    code, shown = guided(place, f"{CHAT}save\n{kind}\n{name}\nexit\n")
    assert code == 0 and f"✅ 模型已保存: {saved}\n" in shown
    assert load_model_auto(place / saved).training_state.step == 3
    listed = saved.startswith(("checkpoints/", "exports/"))
    assert (f"打开: cgpt chat {saved}\n" in shown) == (not listed)
    again = guided(place, "n\n\n")[1] if listed else ""
    assert not listed or f"  ✓ {saved}\n" in again


@pytest.mark.parametrize(
    "answers",
    ["n\n", "N\n", "取消\n", "exit\n", "1\nexit\nn\n", "2\nSave\nn\n", "1\nn\nn\n", "1\ny\nn\n"],
)
def test_save_in_the_chat_can_be_cancelled(
    guided: Callable[..., tuple[int, str]], place: Path, answers: str
) -> None:
    before = sorted(place.rglob("*"))
    code, shown = guided(place, f"{CHAT}save\n{answers}你好\nexit\n")
    assert code == 0 and "✗ 已取消保存\n\n👤 用户: 你好\n" in shown
    assert sorted(place.rglob("*")) == before
    asked = answers.count("\n") == 3
    assert ("像是命令，用作文件名吗? (y/n): n" in shown) == asked


def test_a_command_word_may_be_a_name(guided: Callable[..., tuple[int, str]], place: Path) -> None:
    code, shown = guided(place, f"{CHAT}save\n1\nquit\ny\nexit\n")
    assert code == 0 and "✅ 模型已保存: checkpoints/quit\n" in shown


def test_save_after_training_can_be_cancelled(
    guided: Callable[..., tuple[int, str]], fresh: Path
) -> None:
    code, shown = guided(fresh, "n\ny\nn\ny\n1\nmine.bin\nexit\n")
    assert code == 0 and shown.count("是否保存当前模型? (y/n): ") == 2
    assert "✗ 已取消保存\n" in shown and "✅ 模型已保存: mine.bin\n" in shown
    assert (fresh / "mine.bin").exists()


@pytest.mark.parametrize("key", ["\x03", "\x04"])
@pytest.mark.parametrize("depth", [0, 1])
def test_ctrl_c_and_ctrl_d_leave_the_save_dialog(place: Path, key: str, depth: int) -> None:
    with Screen("chat", cwd=place) as screen:
        screen.answer("👤 用户: ", "save")
        screen.expect("请选择 (1/2/3): ")
        if depth:
            screen.type("1\r")
            screen.expect("model_final.bin): ")
        screen.type(key)
        screen.expect("✗ 已取消保存\n\n👤 用户: ")
        screen.type("quit\r")
        screen.expect("👋 再见!")
        assert screen.end() == 0


@pytest.mark.parametrize("word", ["quit", "QUIT", " Exit ", "ｑｕｉｔ", "exit"])
def test_words_that_leave(guided: Callable[..., tuple[int, str]], place: Path, word: str) -> None:
    code, shown = guided(place, f"{CHAT}{word}\n你好\n")
    assert code == 0 and shown.endswith(f"👤 用户: {word}\n👋 再见!\n")


@pytest.mark.parametrize("word", ["help", "HELP", "Help "])
def test_help_says_what_can_be_typed(
    guided: Callable[..., tuple[int, str]], place: Path, word: str
) -> None:
    code, shown = guided(place, f"{CHAT}{word}\nquit\n")
    hints = guide.CHAT_BOX.partition("╝\n\n")[2].strip()
    told = shown.partition(f"👤 用户: {word}\n")[2]
    assert code == 0 and told.startswith("\n" + hints + "\n") and "🤖" not in told
    for said in ("'quit' 与 'exit' 相同", "'help'", "Ctrl-C", "粘贴"):
        assert said in told


# ---- ways out ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "saved"),
    [
        ("", "checkpoints/model_pretrained.bin"),
        ("n\n", "checkpoints/model_final.bin"),
        ("n\ny\n", "checkpoints/model_final.bin"),
        ("n\ny\n1\n", "checkpoints/model_final.bin"),
        ("n\nn\n你好\n", "checkpoints/model_final.bin"),
    ],
)
def test_end_of_input_saves_what_is_unsaved(
    guided: Callable[..., tuple[int, str]], fresh: Path, answers: str, saved: str
) -> None:
    code, shown = guided(fresh, answers)
    assert code == 0
    assert shown.endswith(f"💾 模型尚未保存，已自动保存到: {saved}\n")
    assert load_model_auto(fresh / saved).training_state.step == 3


def test_exit_keeps_the_decision_not_to_save(
    guided: Callable[..., tuple[int, str]], fresh: Path
) -> None:
    code, shown = guided(fresh, "n\nn\nexit\n")
    assert code == 0 and shown.endswith("👋 再见!\n")
    assert not list((fresh / "checkpoints").iterdir())


def test_rescue_takes_a_free_name(guided: Callable[..., tuple[int, str]], place: Path) -> None:
    old = (place / "checkpoints/model_final.bin").read_bytes()
    code, shown = guided(place, "n\nn\n", "--pretrain-epochs", "0")
    assert code == 0 and "checkpoints/model_final_2.bin" in shown
    assert (place / "checkpoints/model_final.bin").read_bytes() == old
    assert (place / "checkpoints/model_final_2.bin").exists()


def test_ctrl_c_while_training_keeps_the_model(fresh: Path) -> None:
    with Screen("--preset", "tiny", "--pretrain-epochs", "20000", cwd=fresh) as screen:
        screen.expect("步 ")
        screen.type("\x03")
        screen.answer("是否保存当前模型? (y/n): ", "y")
        assert "⏹ 训练已中断，模型已保留。" in screen.text
        screen.answer("请选择 (1/2/3): ", "1")
        screen.answer("文件名 (默认: checkpoints/model_final.bin): ", "")
        screen.expect("cgpt resume checkpoints/model_final.bin")
        screen.expect("👤 用户: ")
        screen.type("\x03")
        screen.expect("再按一次 Ctrl-C")
        screen.expect("👤 用户: ")
        screen.type("\x03")
        assert screen.end() == 130
    assert load_model_auto(fresh / "checkpoints/model_final.bin").training_state.unfinished


def test_ctrl_c_at_a_question_saves_and_ends(fresh: Path) -> None:
    with Screen(*QUICK, cwd=fresh) as screen:
        screen.expect("是否保存预训练checkpoint? (y/n): ")
        screen.type("half an answer\x03")
        assert screen.end() == 130
        assert "已自动保存到: checkpoints/model_pretrained.bin" in screen.text
        assert "Traceback" not in screen.text
    assert (fresh / "checkpoints/model_pretrained.bin").exists()


def test_hangup_saves(fresh: Path) -> None:
    with Screen(*QUICK, cwd=fresh) as screen:
        screen.answer("是否保存预训练checkpoint? (y/n): ", "n")
        screen.expect("是否保存当前模型? (y/n): ")
        screen.hang_up()
        assert screen.process.wait(timeout=30) == 129
    assert (fresh / "checkpoints/model_final.bin").exists()


def test_ctrl_c_at_the_first_question_loses_nothing(place: Path) -> None:
    with Screen(*QUICK, cwd=place) as screen:
        screen.expect("是否加载已有模型? (y/n): ")
        screen.type("\x03")
        assert screen.end() == 130
        assert "保存到" not in screen.text and "Traceback" not in screen.text


def test_ctrl_c_ends_the_answer_only(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from cgpt.cli.ui.chat_loop import answer
    from cgpt.cli.ui.terminal import Terminal

    closed = []

    def endless() -> Iterator[str]:
        try:
            yield "山"
            signal.raise_signal(signal.SIGINT)
            while True:
                time.sleep(0.001)
                yield "水"
        finally:
            closed.append(True)

    answer(Terminal(), Speaker(endless), "你好")
    assert capsys.readouterr().out == "🤖 模型: 山水 [已停止]\n\n"
    assert closed
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_before_the_first_word_is_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    from cgpt.cli.ui.chat_loop import answer
    from cgpt.cli.ui.terminal import Terminal

    def slow() -> Iterator[str]:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("went on")
        yield ""

    answer(Terminal(), Speaker(slow), "你好")
    assert capsys.readouterr().out == "🤖 模型: [已停止]\n\n"


# ---- other screens -------------------------------------------------------------------------


def test_english_on_a_narrow_screen(fresh: Path) -> None:
    with Screen(*QUICK, "--lang", "en", cwd=fresh, columns=40) as screen:
        screen.answer("Save the pre-training checkpoint? (y/n): ", "y")
        screen.answer("Save the current model? (y/n): ", "y")
        screen.answer("Your choice (1/2/3): ", "2")
        screen.answer("File name (default: exports/model_final.json): ", "")
        screen.expect("Model saved: exports/model_final.json")
        screen.answer("👤 You: ", "exit")
        assert screen.end() == 0
        shown = screen.text
    samples = re.compile(r"^sample \[step.*?(?=^(?:pre|fine)-)", re.M | re.S)
    assert not re.search("[\u4e00-\u9fff]", samples.sub("", shown))
    boxes = [line for line in shown.split("\n") if line[:1] in "╔║╚" and line]
    assert boxes and {text_width(line) for line in boxes} == {40}
    assert re.search(r"step +3/3\nloss +\d", shown)


def test_reading_the_data_comes_with_a_reason_when_it_fails(
    guided: Callable[..., tuple[int, str]], fresh: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (fresh / "data/pretraining_data.json").write_bytes("山高水长".encode("gbk"))
    code, _ = guided(fresh, "y\n")
    assert code == 1
