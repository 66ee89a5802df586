"""Everything that users read, Chinese and English side by side; `t(key)` in the chosen language.

Help texts of commands and options lie in help_text.py. Messages of CgptErrors are written where
the error is raised, in English; error_text.py says them in Chinese.
"""

from __future__ import annotations

from contextvars import ContextVar

from cgpt.cli.view_text import VIEW

LANGUAGES = ("zh", "en")

_language: ContextVar[str] = ContextVar("language", default="zh")

# key: (Chinese, English)
MESSAGES: dict[str, tuple[str, str]] = {
    # the guided run: choosing
    "banner": ("CGPT - 中文GPT模型训练系统", "CGPT - Chinese GPT model training"),
    "no_model": ("📝 未检测到已保存的模型，将开始训练新模型...",
                 "📝 No saved model found, training a new one..."),
    "new_model": ("📝 将开始训练新模型...", "📝 Training a new model..."),
    "models_found": ("🔍 检测到已保存的模型:", "🔍 Saved models found:"),
    "none_usable": ("这些文件都无法加载；用 cgpt info PATH 查看原因。",
                    "None of these files can be loaded; cgpt info PATH says why."),
    "ask_train_new": ("是否训练新模型? (y/n): ", "Train a new model? (y/n): "),
    "ask_load": ("是否加载已有模型? (y/n): ", "Load a saved model? (y/n): "),
    "which_model": ("选择要加载的模型:", "Which model to load:"),
    "mark_final": (" (最终模型)", " (final model)"),
    "mark_pretrained": (" (预训练checkpoint)", " (pre-training checkpoint)"),
    "ask_choice": ("请选择 ({numbers}): ", "Your choice ({numbers}): "),
    "loading": ("📂 正在加载模型: {path}...", "📂 Loading model: {path}..."),
    "layer_rebuilt": ("   [{i}] 重建层... ✓", "   [{i}] Rebuilding layer... ✓"),
    "loaded": ("✅ 模型加载成功!", "✅ Model loaded!"),
    "loaded_vocabulary": ("  • 词汇量: {n}", "  • Vocabulary: {n}"),
    "loaded_parameters": ("  • 总参数: {n}", "  • Parameters: {n}"),
    "loaded_layers": ("  • 网络架构: {layers}", "  • Layers: {layers}"),
    "load_failed": ("❌ 加载失败 ({kind}): {reason}", "❌ Could not load ({kind}): {reason}"),
    "choose_another": ("请选择其他模型，或输入 n 返回。", "Choose another model, or n to go back."),
    "kind_missing": ("文件不存在", "no such file"),
    "kind_damaged": ("文件已损坏", "damaged file"),
    "kind_version": ("格式版本不同", "other format version"),
    "kind_foreign": ("不是 cgpt 文件", "not a cgpt file"),
    "kind_error": ("错误", "error"),
    # the guided run: training
    "ask_save_pretrained": ("💾 是否保存预训练checkpoint? (y/n): ",
                            "💾 Save the pre-training checkpoint? (y/n): "),
    "pretrained_saved": ("✓ 预训练checkpoint已保存", "✓ Pre-training checkpoint saved"),
    "pretrained_saved_as": ("✓ 预训练checkpoint已保存: {path}",
                            "✓ Pre-training checkpoint saved: {path}"),
    "trained": ("✅ 训练完成!", "✅ Training finished!"),
    "in_parallel": ("{n} 个进程一同训练（{machines} 台机器，每个进程 {threads} 个线程）",
                    "{n} processes train together ({machines} machines, {threads} threads each)"),
    "training_stopped": ("⏹ 训练已中断，模型已保留。", "⏹ Training stopped, the model is kept."),
    "training_failed": ("❌ 训练停止: {reason}", "❌ Training stopped: {reason}"),
    "ask_continue": ("是否继续训练此模型? (y/n): ", "Continue training this model? (y/n): "),
    "skip_training": ("✓ 跳过训练，直接进入交互模式", "✓ Skipping training, straight to the chat"),
    "continue_mode": ("🔄 继续训练模式", "🔄 Continue training"),
    "ask_epochs": ("训练轮数 (默认{default}): ", "Epochs (default {default}): "),
    "ask_lr": ("学习率 (默认{default}): ", "Learning rate (default {default}): "),
    "continue_start": ("开始继续训练 ({epochs} epochs, lr={lr})...",
                       "Continuing the training ({epochs} epochs, lr={lr})..."),
    "continue_done": ("✅ 继续训练完成!", "✅ Continued training finished!"),
    # saving
    "box_save": ("模型保存选项", "Save the model"),
    "ask_save": ("是否保存当前模型? (y/n): ", "Save the current model? (y/n): "),
    "which_format": ("选择保存格式:", "Which format:"),
    "format_1": ("  1) 二进制格式 (.bin) - 推荐，文件小、速度快",
                 "  1) Binary (.bin) - recommended, small and fast"),
    "format_2": ("  2) JSON格式 (.json) - 人类可读，便于调试",
                 "  2) JSON (.json) - readable, for debugging"),
    "format_3": ("  3) 两种格式都保存", "  3) Both formats"),
    "ask_file": ("文件名 (默认: {default}): ", "File name (default: {default}): "),
    "ask_overwrite": ("文件已存在，是否覆盖 {path}? (y/n): ",
                      "The file exists, overwrite {path}? (y/n): "),
    "model_saved": ("✅ 模型已保存: {path}", "✅ Model saved: {path}"),
    "saving_binary": ("保存二进制格式...", "Saving as binary..."),
    "binary_saved": ("✓ 二进制格式已保存: {path}", "✓ Binary saved: {path}"),
    "saving_json": ("保存JSON格式...", "Saving as JSON..."),
    "json_saved": ("✓ JSON格式已保存: {path}", "✓ JSON saved: {path}"),
    "save_failed": ("❌ 保存失败: {reason}", "❌ Could not save: {reason}"),
    "rescued": ("💾 模型尚未保存，已自动保存到: {path}",
                "💾 The model was not saved yet, it is now in: {path}"),
    "resume_hint": ("💡 从中断处继续: cgpt resume {path}", "💡 To go on: cgpt resume {path}"),
    # questions
    "need_yes_no": ("请输入 y 或 n。", "Please type y or n."),
    "need_choice": ("请输入 {numbers} 中的一个。", "Please type one of {numbers}."),
    "need_epochs": ("训练轮数应为正整数，例如 {default}。",
                    "Epochs must be a whole number above 0, such as {default}."),
    "need_lr": ("学习率应为 0 与 1 之间的数，例如 {default}。",
                "The learning rate must be a number between 0 and 1, such as {default}."),
    # chat
    "box_chat": ("交互模式", "Chat"),
    "hint_ask": ("💡 输入问题后按回车生成回答", "💡 Type a question and press Enter"),
    "hint_exit": ("💡 输入 'exit' 退出程序", "💡 Type 'exit' to leave"),
    "hint_clear": ("💡 输入 'clear' 清空对话上下文", "💡 Type 'clear' to forget the conversation"),
    "hint_save": ("💡 输入 'save' 保存当前模型", "💡 Type 'save' to save the model"),
    "user": ("👤 用户: ", "👤 You: "),
    "model": ("🤖 模型: ", "🤖 Model: "),
    "answer_stopped": ("[已停止]", "[stopped]"),
    "no_answer": ("[没有回答]", "[no answer]"),
    "cleared": ("✓ 对话上下文已清空", "✓ Conversation forgotten"),
    "ctrl_c_hint": ("输入 'exit' 或按 Ctrl-D 退出；再按一次 Ctrl-C 也会退出。",
                    "Type 'exit' or press Ctrl-D to leave; so does a second Ctrl-C."),
    "goodbye": ("👋 再见!", "👋 Goodbye!"),
    # training, in words
    "reading": ("正在读取数据、学习词汇...", "Reading the data, learning the vocabulary..."),
    "data_read": ("数据: {documents} 篇文本, {dialogues} 段对话, {files} 个文件",
                  "data: {documents} documents, {dialogues} dialogues, {files} files"),
    "data_dropped": ("  {path}: 跳过 {n} 条", "  {path}: {n} left out"),
    "model_made": ("模型: {parameters} 个参数, 词汇量 {vocabulary}, 上下文 {context}",
                   "model: {parameters} parameters, vocabulary {vocabulary}, context {context}"),
    "phase_pretrain": ("预训练", "pre-training"),
    "phase_finetune": ("微调", "fine-tuning"),
    "phase_other": ("训练", "training"),
    "p_epoch": ("轮 {now}/{all}", "epoch {now}/{all}"),
    "p_step": ("步 {now}/{all}", "step {now}/{all}"),
    "p_loss": ("损失 {loss}", "loss {loss}"),
    "p_val": ("验证 {loss}", "held-out {loss}"),
    "p_lr": ("学习率 {lr}", "lr {lr}"),
    "p_speed": ("{speed} 词/秒", "{speed} tok/s"),
    "p_left": ("剩余 {time}", "{time} left"),
    "phase_done": ("{phase}完成: {steps} 步, 损失 {loss}, 用时 {time}",
                   "{phase} done: {steps} steps, loss {loss}, {time}"),
    "phase_early": ("{phase}提前停止 (验证损失不再下降): {steps} 步, 损失 {loss}, 用时 {time}",
                    "{phase} stopped early (held-out loss no longer falls): "
                    "{steps} steps, loss {loss}, {time}"),
    "phase_budget": ("{phase}已到步数或时间上限: {steps} 步, 损失 {loss}, 用时 {time}",
                     "{phase} reached its budget: {steps} steps, loss {loss}, {time}"),
    "phase_interrupted": ("{phase}已中断: {steps} 步, 损失 {loss}, 用时 {time}",
                          "{phase} interrupted: {steps} steps, loss {loss}, {time}"),
    "stopping": ("正在完成当前步；再按一次 Ctrl-C 立即结束。",
                 "Finishing this step; a second Ctrl-C ends at once."),
    "stop_hint": ("Ctrl-C: 完成当前步后停止，不丢失进度", "Ctrl-C finishes this step and stops"),
    **VIEW,
    # commands
    "label_error": ("错误: ", "error: "),
    "label_usage": ("用法: ", "usage: "),
    "label_options": ("选项:", "Options:"),
    "label_commands": ("命令:", "Commands:"),
    "label_default": ("默认: {value}", "default: {value}"),
    "try_help": ("试试 '{command} --help'。", "Try '{command} --help'."),
    "interrupted": ("已中断", "interrupted"),
    "out_of_memory": ("内存不足；请用更小的模型或更小的批。",
                      "out of memory; use a smaller model or a smaller batch"),
    "resume_with": ("已中断，模型已保存: {path}\n继续: {command}",
                    "interrupted, the model is saved: {path}\nto go on: {command}"),
    "go_on_with": ("接着训练到最后一轮: {command}", "to go on to the last epoch: {command}"),
    "saved": ("模型已保存: {path}", "model saved: {path}"),
    "save_elsewhere": ("无法保存到 {path}: {reason}", "could not save to {path}: {reason}"),
    "checkpoint_failed": ("❌ 中途保存失败，训练继续: {reason}",
                          "❌ A checkpoint could not be saved, training goes on: {reason}"),
    "data_changed": ("数据已改变，用新数据重新开始: {phases}",
                     "the data has changed, beginning anew on it: {phases}"),
    "resuming": ("继续训练: {path}", "going on with {path}"),
    "trying_previous": ("改用它之前的 checkpoint...", "trying the checkpoint before it..."),
    "nothing_to_resume": ("{path} 的训练已经完成；用 --epochs N 把总轮数增加到 N。",
                          "the training of {path} is complete; --epochs N makes it N in all"),
    "empty_question": ("问题为空；用 -p TEXT 或标准输入给出问题。",
                       "the question is empty; give it by -p TEXT or on stdin"),
    "imported": ("RustGPT-Chinese 模型: {graph}，{words} 个词",
                 "model of RustGPT-Chinese: {graph}, {words} words"),
    "imported_steps": ("优化器状态一并导入 (第 {n} 步)，继续训练时从该状态接着算",
                       "Adam's state is imported too (step {n}); further training goes on from it"),
    "imported_no_steps": ("没有可接续的优化器状态，继续训练时将重新开始累积",
                          "no optimizer state that could go on; further training starts afresh"),
    "exported": ("已导出: {path} ({size})", "exported: {path} ({size})"),
    "verified": ("校验: 全部字节完好", "verified: every byte is as written"),
    # what `cgpt info` shows: the names of its JSON, said in Chinese
    "info_path": ("文件", "path"),
    "info_format": ("格式", "format"),
    "info_version": ("版本", "version"),
    "info_bytes": ("大小", "bytes"),
    "info_graph": ("计算图", "graph"),
    "info_parameters": ("参数量", "parameters"),
    "info_words": ("词汇量", "words"),
    "info_best_weights": ("最佳权重", "best_weights"),
    "info_verified": ("已校验", "verified"),
    "info_config": ("配置", "config"),
    "info_layers": ("层", "layers"),
    "info_optimizer": ("优化器", "optimizer"),
    "info_training_state": ("训练状态", "training_state"),
    "info_metadata": ("附加信息", "metadata"),
    "info_records": ("记录", "records"),
    "info_python": ("Python", "python"),
    "info_platform": ("平台", "platform"),
    "info_instruction_set": ("指令集", "instruction_set"),
    "info_instruction_sets": ("可用指令集", "instruction_sets"),
    "info_openmp": ("OpenMP", "openmp"),
    "info_threads": ("线程数", "threads"),
    "info_cpus": ("处理器数", "cpus"),
    "info_vocabulary": ("词汇表", "vocabulary"),
    "tok_out": ("保存到", "out"),
    "tok_path": ("文件", "path"),
    "tok_kind": ("种类", "kind"),
    "tok_tokens": ("词汇量", "tokens"),
    "tok_words": ("其中字词", "words"),
    "tok_lengths": ("长度 (字符): 个数", "length (characters): words"),
    "tok_first": ("最前", "first"),
    "tok_longest": ("最长", "longest"),
    "tok_text_characters": ("文本字符数", "characters of text"),
    "tok_text_bytes": ("文本字节数", "bytes of text"),
    "tok_text_tokens": ("文本词数", "tokens of text"),
    "tok_characters_per_token": ("每词字符数", "characters a token"),
    "tok_bytes_per_token": ("每词字节数", "bytes a token"),
    "tok_byte_tokens": ("字节词的比例", "share of single bytes"),
    "tok_unused": ("没有用到的词", "words not used"),
    "tok_seconds": ("用时 (秒)", "seconds"),
    "diff_same": ("两个模型完全相同 ({n} 个张量)", "the models are the same ({n} tensors)"),
    "diff_tensors": ("{n} 个张量不同, {equal} 个相同", "{n} tensors differ, {equal} are the same"),
    "yes": ("是", "yes"),
    "no": ("否", "no"),
    "with_openmp": ("有", "yes"),
    "without_openmp": ("没有 (编译时没有 OpenMP，只用一个线程)",
                       "no (built without OpenMP, so there is one thread)"),
    "seconds": ("{n} 秒", "{n} s"),
    "eval_all": ("合计", "all"),
    "row_loss": ("损失 (nats/词)", "loss (nats/token)"),
    "row_perplexity": ("困惑度", "perplexity"),
    "row_bpc": ("每字符比特数", "bits per character"),
    "row_bpb": ("每字节比特数", "bits per byte"),
    "row_counts": ("词 / 字符 / 字节", "tokens / characters / bytes"),
    "bench_running": ("正在测量 {what}...", "measuring {what}..."),
    "bench_median": ("中位数 {median} {unit}, 最小 {low}, 最大 {high}, {n} 次",
                     "median {median} {unit}, least {low}, most {high}, {n} times"),
    "bench_ratio": ("是 {to} 的 {median} 倍, 最小 {low}, 最大 {high}",
                    "{median} times {to}, least {low}, most {high}"),
    "bench_skipped": ("跳过 {side}: {reason}", "leaving {side} out: {reason}"),
    # usage errors
    "no_command": ("没有命令 '{name}'", "no such command '{name}'"),
    "no_option": ("没有选项 '{name}'", "no such option '{name}'"),
    "did_you_mean": ("，是不是 '{name}'?", "; did you mean '{name}'?"),
    "missing_argument": ("缺少 {name}", "missing {name}"),
    "option_needs_value": ("选项 '{name}' 需要一个值", "option '{name}' needs a value"),
    "option_takes_no_value": ("选项 '{name}' 不接受值", "option '{name}' takes no value"),
    "extra_argument": ("多余的参数: {name}", "unexpected argument: {name}"),
    "bad_value": ("{name} 的值不对: {reason}", "bad value for {name}: {reason}"),
    "not_whole": ("'{value}' 不是整数", "'{value}' is not a whole number"),
    "not_number": ("'{value}' 不是有限的数", "'{value}' is not a finite number"),
    "out_of_range": ("{value} 不在范围 {range} 内", "{value} is not in {range}"),
    "not_one_of": ("'{value}' 不是 {choices} 之一", "'{value}' is not one of {choices}"),
    "not_bias": ("'{value}' 不是 ID=F，例如 270=-5", "'{value}' is not ID=F, such as 270=-5"),
    "empty_text": ("文本为空", "the text is empty"),
    "num_above_beam": ("--num {num} 大于束宽 --beam {beam}；请增大 --beam",
                       "--num {num} is more than --beam {beam} finds; set --beam higher"),
    "session_system": ("{path} 已有自己的系统提示；请去掉 --system，或换一个 --session 文件",
                       "{path} has its own system message; leave --system out or name another "
                       "--session file"),
    "bad_suffix": ("'{value}' 应以 .bin 或 .json 结尾", "'{value}' must end in .bin or .json"),
    "guided_option": ("选项 '{name}' 属于引导运行；用于命令时请写在 '{command}' 之后",
                      "option '{name}' is for the guided run; for a command write it after "
                      "'{command}'"),
}


def language() -> str:
    """The language of this run, "zh" or "en"."""
    return _language.get()


def set_language(name: str) -> None:
    """Choose the language; anything that begins with zh or en will do. Raises ValueError."""
    found = [known for known in LANGUAGES if name.strip().lower().startswith(known)]
    if not found:
        raise ValueError(name)
    _language.set(found[0])


def pick(pair: tuple[str, str]) -> str:
    """The text of a (Chinese, English) pair in the language of this run."""
    return pair[LANGUAGES.index(language())]


def t(key: str, **values: object) -> str:
    """The message of that key with its {fields} filled in."""
    text = pick(MESSAGES[key])
    return text.format(**values) if values else text
