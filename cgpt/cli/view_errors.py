"""Chinese of the errors of watching, plotting, inspecting and evaluating; part of error_sentences.

Fields and their meaning as there.
"""

from __future__ import annotations

VIEW_ERRORS: dict[str, str] = {
    "the data is not that of the run to be repeated: found {fingerprint}, expected {wanted}; put "
    "the old files back, or remove {key} from the file":
        "数据与要重复的那次运行不同: 指纹为 {fingerprint}，应为 {wanted}；请放回原来的文件，或从"
        "文件中删去 {key}",
    "{path}: the log cannot be read ({reason}); check the path":
        "{path}: 无法读取日志（{reason}）；请检查路径",
    "{path} line {number}: not a step of a log, expected an object with phase, step and loss; give "
    "a file that --log wrote":
        "{path} 第 {number} 行: 不是日志的一步，应为含 phase、step、loss 的对象；"
        "请给出 --log 写的文件",
    "{path}: no step in the log; wait for the first one or give another file":
        "{path}: 日志中还没有一步；请等第一步完成，或换一个文件",
    "{path}: the model has no history of losses; it was not trained yet":
        "{path}: 模型没有损失记录，还没有训练过",
    "{path}: the file does not say how it was trained, so there is nothing to repeat; train with "
    "cgpt train or the guided run":
        "{path}: 文件没有记录训练方式，无法重复；请用 cgpt train 或引导运行训练",
    "{path}: was trained further from the weights of an earlier model, which the file does not "
    "hold, so no configuration repeats it; ask the model that it was made from":
        "{path}: 是在另一个模型的权重上继续训练的，文件中没有那些权重，因此没有配置能重复它；"
        "请查看它所来自的模型",
    "matplotlib is not installed, which draws the pictures; pip install 'cgpt[plot]'":
        "画图需要 matplotlib，而它没有安装；请运行 pip install 'cgpt[plot]'",
    "{file}: not a font that can be read; name a .ttf, .otf or .ttc file":
        "{file}: 不是可读的字体；请指定 .ttf、.otf 或 .ttc 文件",
    "inspect: the text has {count} tokens, expected 1 to {most}, as many as the context holds; "
    "change it":
        "inspect: 文本有 {count} 个词，应为 1 到 {most} 个（上下文所能容纳的）；请修改文本",
    "inspect: {name} {value} is beyond the model, which has {most}; count from 1":
        "inspect: {name} {value} 超出模型，它只有 {most} 个；请从 1 数起",
    "difference: the scores are of other documents; score both models on the same ones":
        "difference: 两组得分来自不同的文档；请用同样的文档评测两个模型",
    "accuracy: no question; give files of dialogues, each with an answer":
        "accuracy: 没有问题；请给出带回答的对话文件",
}
