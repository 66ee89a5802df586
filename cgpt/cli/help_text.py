"""Help of commands and options, Chinese and English side by side."""

from __future__ import annotations

# name of the command: (Chinese, English); the first line also stands in the list of commands
COMMANDS: dict[str, tuple[str, str]] = {
    "cgpt": (
        "在 CPU 上训练、保存、加载小型中文 GPT 模型，并与之对话。\n"
        "不带命令时进入引导运行: 训练、保存、加载、继续训练、对话。\n"
        "每个选项也可由环境变量 CGPT_<选项> 给出，例如 CGPT_MAX_STEPS=100。",
        "Train, save, load and talk to small Chinese GPT models on the CPU.\n"
        "Without a command it guides you through training, saving, loading and chat.\n"
        "Every option also reads CGPT_<OPTION>, such as CGPT_MAX_STEPS=100."),
    "train": (
        "训练新模型: 先预训练，再用对话微调；--init 则从已有的模型开始。\n"
        "不给数据时用当前目录的 data/*.json，没有则用自带数据。Ctrl-C 完成当前步后保存。",
        "Train a new model: pre-training, then fine-tuning on dialogues; or begin with --init.\n"
        "Without data it takes data/*.json here, else the packaged data. Ctrl-C finishes the "
        "step and saves."),
    "resume": (
        "从 checkpoint 停下的地方继续训练，结果与未中断时完全相同。\n"
        "指定文件时，结果写回该文件 (或 --out)；不指定时取 --checkpoint-dir 里唯一未完成的训练，"
        "有多个时列出供选择。",
        "Go on exactly where a checkpoint stopped.\n"
        "A file that is named is the one that is written (or --out). Without a name: the only "
        "unfinished training in --checkpoint-dir; of several it asks which."),
    "chat": (
        "与模型对话。\n"
        "用 -p TEXT 或管道给出问题时回答一次就结束；两者都给时，先是 TEXT，空一行，"
        "再是管道的文本。\n"
        "MODEL 默认 checkpoints/model_final.bin。",
        "Talk to a model.\n"
        "With -p TEXT or a piped stdin it answers once and exits; with both it is asked TEXT, an "
        "empty line, and the text of the pipe.\n"
        "MODEL: checkpoints/model_final.bin by default."),
    "generate": ("续写一段文本。\n不给 TEXT 时读标准输入。",
                 "Continue a text.\nWithout TEXT it reads stdin."),
    "eval": (
        "在文本或对话文件上评测: 损失、困惑度、每字符与每字节比特数。\n"
        "可给多个模型并列比较；--compare 另给差别及其 95% 区间，--accuracy 让模型回答问题。",
        "Measure loss, perplexity, bits per character and per byte on files.\n"
        "Several models are shown side by side; --compare adds the difference and its 95 % "
        "interval, --accuracy lets the model answer the questions of dialogues."),
    "plot": (
        "画出运行的损失曲线: 给日志 (--log 所写) 或模型文件，可多个。\n"
        "不给 -o 时画在终端；-o 写 .png、.svg 或 .pdf (需要 cgpt[plot])。",
        "Draw the losses of runs: logs that --log wrote, or model files.\n"
        "In the terminal, or with -o as .png, .svg or .pdf (needs cgpt[plot])."),
    "inspect": (
        "逐词查看模型的预测: 概率、名次、最可能的词；-o 画出注意力图。\n"
        "不给 TEXT 时读标准输入。"
        "默认每层一幅 (各头平均)；--layer N 画该层各头，再加 --head N 只画一头。",
        "Token by token what a model expected: probability, rank, alternatives; -o draws its "
        "attention.\n"
        "Without TEXT it reads stdin. A map a layer (mean of heads); --layer N: its heads, with "
        "--head N that one alone."),
    "export": ("转存为 .bin 或 .json (按后缀)。", "Save as .bin or .json, by suffix."),
    "merge": ("把 LoRA 适配器并入它的模型，存为 OUT。",
              "Merge a LoRA adapter into its model and save the result as OUT."),
    "import": (
        "读入其他来源的模型，存为 OUT.bin。\n"
        "支持 cgpt 的 .bin 与 .json，以及 RustGPT-Chinese 导出的 JSON。",
        "Read a model from elsewhere and save it as OUT.bin.\n"
        "Known: cgpt's .bin and .json, and the JSON exports of RustGPT-Chinese."),
    "info": (
        "显示模型的配置、层、参数、记录与训练状态。\n不给 MODEL 时显示版本、指令集与线程数。",
        "Show a model's configuration, layers, parameters, records and training state.\n"
        "Without MODEL: version, instruction set, threads."),
    "diff": (
        "比较两个模型文件: 配置、词汇、训练状态与每个张量。\n有差别时退出码为 1。",
        "Compare two model files: configuration, vocabulary, training state, every tensor.\n"
        "The exit code is 1 where they differ."),
    "data": (
        "像训练时一样读取文件，显示每个文件的文本、对话、字符、词，以及去掉了什么；不训练。\n"
        "很大的语料同时切成词存入缓存，之后的训练直接使用。",
        "Read files as a training would and show documents, dialogues, characters, tokens of each, "
        "and what was left out; without training.\n"
        "A large corpus is tokenised into the cache, where a training finds it."),
    "tokenizer": (
        "词汇表: 学习、编码、查看。\nFILE 为词汇表文件或模型文件。",
        "Vocabularies: learn one, encode with one, look into one.\n"
        "FILE is a vocabulary or a model."),
    "tokenizer train": (
        "从文件学习词汇表并保存。", "Learn a vocabulary from files and save it."),
    "tokenizer encode": (
        "把一段文本 (默认标准输入) 变成词，每行一个编号和词。",
        "Turn a text (stdin by default) into tokens: an id and a token a line."),
    "tokenizer inspect": (
        "显示词汇表的内容；给出文件时，还显示其文本变成多少词。",
        "Show what is in a vocabulary and, with files, what their text becomes."),
    "bench": (
        "测量本机速度 (默认: kernels、train、decode、save)。\n"
        "train 训练 · decode 解码 · kernels 各计算核 · save 保存与加载 · small 小步训练 · "
        "sweep 各种 T 与 B · startup 从启动到第一步、第一个词 · "
        "threads 多线程与单线程 · bits 各线程数结果是否逐位相同 · share Python 占一步的比例 · "
        "roofline 各计算核离机器极限多远。\n"
        "每一方各在自己的进程里，轮流测量；倍数只在同一次测量之内计算。",
        "Measure this machine (default: kernels, train, decode, save).\n"
        "train, decode · kernels: each on its own · save: saving and loading · small: small steps "
        "· sweep: over T and B · startup: from start "
        "to first step, first token · threads: all against one · bits: the same with any number "
        "of threads · share: Python's share of a step "
        "· roofline: each kernel beside what the machine can do.\n"
        "Every side runs in a process of its own, in turn; ratios are made within one run only."),
}

# name of the option's parameter: (Chinese, English)
OPTIONS: dict[str, tuple[str, str]] = {
    "help": ("显示帮助后退出", "show this help and exit"),
    "lang": ("界面语言", "language of the interface"),
    "version": ("显示版本后退出", "show the version and exit"),
    "as_json": ("结果以一个 JSON 对象写到标准输出", "print one JSON object on stdout"),
    "parallel": ("与 mpiexec 启动的其他进程一同训练",
                 "train together with the other processes that mpiexec started"),
    "threads": ("计算线程数", "threads that compute"),
    "seed": ("随机种子", "seed of all that is random"),
    "data": ("训练数据: 文件或文件夹，可多个；对话用于微调，其余用于预训练",
             "training data: files or folders, several; dialogues are for fine-tuning, the rest "
             "for pre-training"),
    "preset": ("模型大小", "size of the model"),
    "n_layer": ("Transformer 层数 (默认随 --preset，下同)",
                "transformer layers (by default the preset's, as the next four)"),
    "n_head": ("注意力头数，须整除 --n-embd", "attention heads; must divide --n-embd"),
    "n_embd": ("模型宽度", "width of the model"),
    "n_ff": ("前馈层宽度，0 为 --n-embd 的 4 倍", "width of the MLP, 0 for 4 times --n-embd"),
    "block_size": ("上下文的词数", "tokens of the context"),
    "pretrain": ("预训练数据: 文件或文件夹，可多个", "texts: files or folders, several"),
    "chat": ("对话数据: 文件或文件夹，可多个", "dialogues: files or folders, several"),
    "config": ("TOML 文件，键为选项名", "TOML file; its keys are names of options"),
    "out": ("模型保存到", "where the model goes"),
    "pretrain_epochs": ("预训练轮数，0 跳过", "pre-training epochs, 0 skips it"),
    "finetune_epochs": ("微调轮数，0 跳过", "fine-tuning epochs, 0 skips it"),
    "max_steps": ("每个阶段最多的步数 (恢复时含已完成的)，0 不限",
                  "most steps of a phase (in all, where it is resumed), 0 for no bound"),
    "max_minutes": ("每个阶段最多的分钟数 (恢复时含已用的)，0 不限",
                    "most minutes of a phase (in all, where it is resumed), 0 for no bound"),
    "batch_size": ("每批的序列数 (每条为满上下文)", "full-context sequences in a batch"),
    "grad_accum": ("每步累积的批数", "batches added up in a step"),
    "lr": ("学习率峰值 (新训练默认随优化器和模型宽度)",
           "peak learning rate (of a new training that of the optimizer at the model's width)"),
    "warmup": ("学习率预热步数 (自己的数据默认为总步数的十分之一，至少 1、最多 50)",
               "steps of learning-rate warm-up (own data: by default a tenth of all, at least 1 "
               "and at most 50)"),
    "validation": ("只用于验证、不用于训练的数据: 文件或文件夹，可多个",
                   "documents to evaluate on and not to train on: files or folders, several"),
    "val_fraction": ("留作验证的比例", "share of the documents held out"),
    "eval_every": ("每隔多少步验证一次，0 为每轮之后",
                   "steps between two evaluations, 0 for one after each epoch"),
    "patience": ("验证损失连续几次不降就停，0 不提前停",
                 "evaluations without a lower held-out loss before it stops, 0 never"),
    "dropout": ("dropout 概率", "dropout probability"),
    "tokenizer": ("词汇表的种类 (默认 words)，或保存了词汇表的 .json 或 .bin 文件",
                  "kind of vocabulary (words by default), or a .json or .bin that holds one"),
    "keep_duplicates": ("保留逐字重复的文本和对话 (默认去掉)",
                        "keep exact duplicates (left out by default)"),
    "skip_invalid": ("略去不能用的行 (默认列出后停止)",
                     "leave out rows that cannot be used (by default they are listed, and that "
                     "is the end)"),
    "as_text": ("字符串一律当作文本，看起来像对话的也是 (训练时只用于预训练文件)",
                "strings are texts, even where they look like a dialogue (in training, those of "
                "the files for pre-training)"),
    "too_long": ("长于上下文的文本和对话: 切开、略去或报错 (默认 cut)",
                 "texts and dialogues longer than the context: cut them, leave them out, or end "
                 "with an error (by default cut)"),
    "mix": ("每轮取 PATH 处数据 F 次 (可为小数；0 不取)，可多次",
            "take the data at PATH F times an epoch (a fraction takes a part, another one each "
            "epoch); repeatable"),
    "cache": ("大语料切成词后存放的文件夹 (默认在用户的缓存文件夹)",
              "folder of the tokens of large corpora (by default in the user's cache folder)"),
    "kind": ("词汇表的种类: 词、字、字节对", "kind of vocabulary: words, characters, byte pairs"),
    "vocab_size": ("词汇量上限", "most entries of the vocabulary"),
    "recompute": ("省内存: 反向传播时重新计算各层的中间结果，慢一到两成",
                  "less memory: compute activations again in the backward pass, a tenth to a "
                  "fifth slower"),
    "checkpoint_dir": ("中途保存的文件夹", "folder of the checkpoints on the way"),
    "save_every": ("每 N 步保存一次，0 不保存；指定 --strategy 时 0 为每轮",
                   "checkpoint every N steps, 0 never; with --strategy 0 means every epoch"),
    "strategy": ("中途保存哪些 checkpoint: 最佳、最后、定期 (默认 last)",
                 "which checkpoints are saved on the way (last where only --save-every is given)"),
    "keep": ("保留几个最佳和定期的 checkpoint", "how many best and periodic ones are kept"),
    "overwrite": ("直接替换已存在的文件，不再询问", "replace files that exist, without a question"),
    "new_data": ("数据已改变时，用新数据重新开始当前阶段",
                 "where the data has changed, begin the phase anew on it"),
    "save_minutes": ("每 F 分钟自动保存到 checkpoint_last.bin，0 不自动保存",
                     "save checkpoint_last.bin every F minutes, 0 never"),
    "log": ("每步记一行 JSON (cgpt plot 用它画图)", "write one JSON line a step (for cgpt plot)"),
    "sample_every": ("每 N 步让模型写一段，不影响训练结果，0 不写",
                     "let the model write something every N steps, 0 never; changes no bit"),
    "sample_prompt": ("续写 (微调时回答) 的开头，默认为文档开头或数据的第一问",
                      "what it continues (or answers, in fine-tuning); default: a document's "
                      "beginning, the first question of the data"),
    "label_smoothing": ("标签平滑: 目标概率分给全部词的比例，0 不用",
                        "share of each target spread over the vocabulary, 0 for none"),
    "ema": ("保存权重的滑动平均，每步保留 F，例如 0.999；0 不用",
            "keep a moving average of the weights, such as 0.999; 0 for none"),
    "optimizer": ("优化器: muon 用于各层矩阵，其余用 AdamW (默认)；adamw 用于全部 (LoRA 的默认)",
                  "muon for the matrices of the layers and AdamW for the rest (the default); adamw "
                  "for all (that of LoRA)"),
    "embedding_lr": ("词嵌入和位置嵌入的学习率是其余的 F 倍 (默认: muon 3，adamw 1)",
                     "learning rate of the embeddings as a multiple of the others' (by default 3 "
                     "with muon, 1 with adamw)"),
    "schedule": ("学习率如何下降: 余弦、线性、不降、保持后线性 (wsd)",
                 "how the learning rate falls; wsd stays, then falls linearly"),
    "schedule_steps": ("学习率在 N 步内降完，0 为全部轮数的步数",
                       "steps in which the learning rate falls, 0 for those of all epochs"),
    "decay_share": ("wsd 中学习率下降的步数占多少", "share of the steps of wsd in which it falls"),
    "min_lr_ratio": ("学习率最后降到峰值的 F 倍",
                     "share of the peak that the learning rate falls to"),
    "init": ("从这个模型的权重和词汇开始训练",
             "begin with the weights and vocabulary of this model"),
    "lora_rank": ("微调时只训练秩为 N 的 LoRA 适配器，0 不用；--out 只存适配器",
                  "fine-tune a LoRA adapter of rank N only, 0 for none; --out holds it alone"),
    "lora_alpha": ("适配器乘以 F/秩 (默认 16)", "the adapter is multiplied by F / rank (16)"),
    "lora_layers": ("适配哪些矩阵，可多次 (默认 'h.*')",
                    "matrices that are adapted, repeatable ('h.*')"),
    "freeze": ("微调时不训练名字符合 PATTERN 的参数，可多次，例如 'h.0.*'",
               "parameters left as they are while fine-tuning, such as 'h.0.*'; repeatable"),
    "freeze_attn": ("微调时不训练注意力层", "leave attention as it is while fine-tuning"),
    "save_pretrained": ("预训练后的模型另存到", "also save the model after pre-training"),
    "epochs": ("当前阶段的总轮数", "epochs of the phase in all"),
    "prompt": ("只回答这一句 (后面接管道的文本)",
               "answer this once (and, behind it, the text of a pipe)"),
    "temperature": ("温度，0 取最可能的词", "temperature, 0 takes the most likely token"),
    "top_p": ("只从累积概率 P 之内取词", "sample inside this much probability"),
    "top_k": ("只从最可能的 K 个词取，0 不限", "sample from the K most likely, 0 for all"),
    "min_p": ("只取概率不低于最可能者 F 倍的词，0 不限",
              "only tokens at least F times as likely as the likeliest, 0 for all"),
    "repetition_penalty": ("重复惩罚 (除或乘)，1 不惩罚",
                           "divides or multiplies logits of tokens in the context, 1 for none"),
    "presence_penalty": ("出现过的词减去 F，0 不惩罚",
                         "subtracted from logits of tokens in the context, 0 for none"),
    "frequency_penalty": ("出现过的词每次减去 F，0 不惩罚",
                          "the same, times the number of occurrences, 0 for none"),
    "no_repeat_ngram": ("连续 N 个词不重复出现，0 不限",
                        "no N tokens in a row occur twice, 0 never"),
    "logit_bias": ("给词 ID 的 logit 加 F，可多次 (ID 见 generate --json)",
                   "add F to the logit of token ID; repeatable (generate --json shows ids)"),
    "stop": ("在 TEXT 出现之前停止，可多次", "end before TEXT would appear; repeatable"),
    "speculate": ("每步最多猜 N 个词并一次验证，结果不变，0 不猜",
                  "guess up to N tokens a step and check them at once, same result, 0 never"),
    "length_penalty": ("束搜索的得分除以长度的 F 次方",
                       "a beam's score is divided by its length to the power F"),
    "session": ("从 FILE 继续对话 (没有则新建)，每轮后保存",
                "go on with the dialogue in FILE (or begin it), saved after every turn"),
    "max_new_tokens": ("最多生成的词数", "most new tokens"),
    "beam": ("束搜索宽度，1 不用", "width of beam search, 1 for none"),
    "system": ("系统提示", "system message"),
    "num": ("生成几份 (束搜索: 最好的几份及得分)",
            "how many continuations (beam search: the best ones, with scores)"),
    "weights_only": ("只存权重，不存优化器", "weights without the optimizer"),
    "weights": ("权重的形式；float16 和 int8 更小更快，存成的文件不含优化器",
                "form of the weights; float16 and int8 are smaller and faster, and their files go "
                "without the optimizer"),
    "compare": ("另一个模型，或同一模型的另一种权重形式，给出与第一个的差别，可多次",
                "another model, or another form of this one's weights: shows the difference from "
                "the first model; repeatable"),
    "stride": ("比上下文长的文本分窗口计算，每隔这么多个词一个 (默认上下文的一半)",
               "texts longer than the context are read in windows; tokens from one to the next "
               "(half the context by default)"),
    "accuracy": ("回答对话里的问题，统计完全一致与包含答案的比例",
                 "answer the questions of dialogues: how many are exact, how many contain it"),
    "max_questions": ("最多回答几个问题，0 不限", "most questions that are answered, 0 for all"),
    "answers": ("把每个回答写入 FILE", "write every answer to FILE (implies --accuracy)"),
    "output": ("图的文件: .png、.svg 或 .pdf", "picture: .png, .svg or .pdf"),
    "font": ("图用的字体文件 (默认自动找有中文的字体)",
             "font file of the picture (default: one with Chinese letters is looked for)"),
    "layer": ("画第 N 层的各头 (从 1 数)", "draw the heads of layer N, from 1"),
    "head": ("只画该层第 N 头 (从 1 数)", "draw head N of the layer alone, from 1"),
    "top": ("列出几个最可能的词", "how many alternatives are listed"),
    "toml": ("写出重复这次训练的 TOML (cgpt train --config)",
             "write the TOML that repeats the training (cgpt train --config)"),
    "verify": ("校验每个字节", "check every byte"),
    "shape": ("模型大小: S、M、L 或 L64 (L，每条 64 词)",
              "shape of the model: S, M, L or L64 (L with 64 tokens a sequence)"),
    "batch": ("一起解码的条数", "sequences that are decoded together"),
    "repeats": ("测量次数", "how often to measure"),
}
