"""Chinese of the sentences that errors are: template of the English text -> Chinese.

A field stands for what the library puts in; those of error_text.NESTED are translated as well.
Where several templates fit, the one with the most literal text counts.
"""

from __future__ import annotations

from cgpt.cli.error_adapters import ADAPTER_SENTENCES
from cgpt.cli.error_data import DATA_SENTENCES
from cgpt.cli.error_models import MODEL_SENTENCES
from cgpt.cli.error_parallel import PARALLEL_SENTENCES
from cgpt.cli.error_talk import TALK_SENTENCES
from cgpt.cli.view_errors import VIEW_ERRORS

SENTENCES: dict[str, str] = {
    **ADAPTER_SENTENCES,
    **DATA_SENTENCES,
    **MODEL_SENTENCES,
    **PARALLEL_SENTENCES,
    **TALK_SENTENCES,
    **VIEW_ERRORS,
    # checkpoint: the sentences of failures.py, their parts lie in error_parts.py
    "{path} is damaged: found {found}, expected {expected}; restore a copy of the file or load an "
    "earlier checkpoint":
        "{path} 已损坏: 发现{found}，应为{expected}；请恢复该文件的备份，或加载更早的 checkpoint",
    "{path} is not a cgpt model file: found {found}, expected {expected}; {advice}":
        "{path} 不是 cgpt 模型文件: 发现{found}，应为{expected}；{advice}",
    "{path} was written by another version of cgpt: found {found}, expected {expected}; update "
    "cgpt to read it":
        "{path} 由其他版本的 cgpt 写成: 发现{found}，应为{expected}；请升级 cgpt 后再读取",
    "{path} does not exist, expected a model file that cgpt saved; check the path":
        "{path} 不存在，应为 cgpt 保存的模型文件；请检查路径",
    "{path} cannot be opened: found no permission to read it, expected a readable file; change "
    "its permissions":
        "{path} 无法打开: 没有读取权限，应为可读的文件；请修改其权限",
    "{path} cannot be opened: found '{reason}', expected a readable file; check the path":
        "{path} 无法打开: {reason}，应为可读的文件；请检查路径",
    "{path} could not be saved: found {found}, expected {expected}; {advice} (nothing was "
    "overwritten)":
        "{path} 无法保存: 发现{found}，应为{expected}；{advice}（没有覆盖任何文件）",
    "{path} is saved whole, but the disk may forget it in a power cut: found '{reason}' when its "
    "folder was synced, expected success; save it again or choose another disk":
        "{path} 已完整保存，但断电时可能丢失: 同步其文件夹时出错（{reason}），应为成功；"
        "请重新保存，或换一个磁盘",
    "save: unknown form of weights {form}; known: {known}":
        "保存: 未知的权重形式 {form}；可用的形式: {known}",
    "save: int8 weights have groups of 32 or 64, found {group}":
        "保存: int8 权重每组 32 或 64 个，而不是 {group}",
    "save: the optimizer goes with float32 weights, found {form} with optimizer=True; pass "
    "optimizer=False":
        "保存: 优化器只能与 float32 权重同存，而现在为 {form} 且 optimizer=True；"
        "请用 optimizer=False",
    "{folder}: several trainings can go on from there ({list}); name the file of one of them":
        "{folder}: 其中有多个训练可以继续（{list}）；请指定其中一个的文件",
    # the command line
    "{path}: both {option} and {second} name this file, expected a file for each; name another one":
        "{path}: {option} 与 {second} 都是这个文件；请换一个文件名",
    "{path}: {option} would replace a file of the data that is read; name another file":
        "{path}: {option} 会替换正在读取的数据文件；请换一个文件名",
    "{path}: the file exists, expected a new one; name another file, or replace it by --overwrite":
        "{path}: 文件已存在；请换一个文件名，或用 --overwrite 替换它",
    "{path}: the log cannot be written ({reason}); free some space or name another file":
        "{path}: 日志无法写入（{reason}）；请腾出空间，或换一个文件",
    "{path}: the answers cannot be written ({reason}); free some space or name another file":
        "{path}: 回答无法写入（{reason}）；请腾出空间，或换一个文件",
    "{folder}: the training could not be saved there nor elsewhere; free some space and train "
    "again":
        "{folder}: 训练无法保存到那里，也无法保存到别处；请腾出空间后重新训练",
    "{folder}: the folder cannot be made ({reason}); run cgpt in a folder that you may write to":
        "{folder}: 无法创建文件夹（{reason}）；请在有写权限的文件夹中运行 cgpt",
    "{path}: a folder, expected a model file; this version imports cgpt's own .bin and .json and "
    "the JSON exports of RustGPT-Chinese (GPT-2 folders have another vocabulary)":
        "{path}: 这是文件夹，应为模型文件；此版本能导入 cgpt 自己的 .bin 和 .json 以及"
        " RustGPT-Chinese 导出的 JSON（GPT-2 文件夹的词汇表不同）",
    "{path}: the file does not say how it was trained, so there is nothing to go on with; train "
    "it from the guided run instead (cgpt)":
        "{path}: 文件没有记录训练方式，无法接着训练；请改用引导运行（cgpt）继续训练",
    "{path}: the file holds weights rounded to {form} without the optimizer's state, so no "
    "training goes on from it; resume the file that it was exported from, or train this one "
    "further in the guided run (cgpt)":
        "{path}: 文件中是舍入为 {form} 的权重，没有优化器状态，无法从它恢复训练；"
        "请恢复导出前的原文件，或在引导运行（cgpt）中继续训练它",
    "{path} does not exist and there is no other model here; train one first (cgpt), or name a "
    "file":
        "{path} 不存在，这里也没有其他模型；请先训练一个（cgpt），或指定文件",
    "{path} does not exist; name one of the models that do: {names}":
        "{path} 不存在；请指定现有的模型之一: {names}",
    "{folder}: no checkpoint to resume; name one, or another folder by --checkpoint-dir":
        "{folder}: 没有可恢复的 checkpoint；请指定一个，或用 --checkpoint-dir 换一个文件夹",
    "{path}: cannot be written ({reason}); name another place by --out":
        "{path}: 无法写入（{reason}）；请用 --out 换一个位置",
    "{path}: is a folder; name a file by --out":
        "{path}: 这是文件夹；请用 --out 指定一个文件",
    "{path}: is a file; name a folder by --checkpoint-dir":
        "{path}: 这是文件；请用 --checkpoint-dir 指定一个文件夹",
    "{path}: JSON holds float32 weights only, found --weights {form}; name a .bin":
        "{path}: JSON 只能保存 float32 权重，而现在为 --weights {form}；请改用 .bin",
    "{path}: unknown key '{key}'{guess}; known: {known}":
        "{path}: 未知的键 '{key}'{guess}；可用的键: {known}",
    "{path}: '{key}' takes one value, found {value}; give one":
        "{path}: '{key}' 只接受一个值，而不是 {value}；请只写一个",
    "{path}: reading TOML needs Python 3.11, or on this Python the package tomli: pip install "
    "tomli":
        "{path}: 读取 TOML 需要 Python 3.11，或在当前 Python 中安装 tomli: pip install tomli",
    "{path}: cannot be read ({reason}); check path and permissions":
        "{path}: 无法读取（{reason}）；请检查路径和权限",
    "{path}: not valid TOML ({reason}); mend the file":
        "{path}: 不是有效的 TOML（{reason}）；请修改该文件",
    "bench: --{option} is for {takers}, not for {benches}; name one of them or leave --{left} "
    "out":
        "bench: --{option} 用于 {takers}，不能用于 {benches}；请换成其中之一，或去掉 --{left}",
    "bench: threads compares several threads with one; use --threads 2":
        "bench: threads 比较多个线程与一个线程；请用 --threads 2",
    "a step of {size} TFLOP takes too long":
        "一步需要 {size} TFLOP，耗时过长",
    "a step may need {needed} GB, of which {free} are free":
        "一步可能需要 {needed} GB 内存，而空闲内存只有 {free} GB",
    "bench: the peer {peer} is not installed; pip install 'cgpt[peers]'":
        "bench: 没有安装对照库 {peer}；请运行 pip install 'cgpt[peers]'",
    "bench: the side {side} ended with an error (shown above)":
        "bench: 测量进程 {side} 出错退出（见上文）",
    # configuration
    "{owner}: unknown field '{name}'; known: {known}":
        "{owner}: 未知字段 '{name}'；可用的字段: {known}",
    "{owner}: {name} must be a whole number, found {value}":
        "{owner}: {name} 应为整数，而不是 {value}",
    "{owner}: {name} must be at least {least}, found {value}":
        "{owner}: {name} 应至少为 {least}，而不是 {value}",
    "{owner}: {name} must be between {least} and {most}, found {value}":
        "{owner}: {name} 应在 {least} 到 {most} 之间，而不是 {value}",
    "{owner}: {name} must be a number, found {value}":
        "{owner}: {name} 应为数，而不是 {value}",
    "{owner}: {name} must be a finite number in {span}, found {value}":
        "{owner}: {name} 应为 {span} 内的有限数，而不是 {value}",
    "GPTConfig: n_head must divide n_embd, found n_head={n_head} and n_embd={n_embd} (remainder "
    "{rest}); choose another pair":
        "GPTConfig: n_head 应整除 n_embd，而现在 n_head={n_head}，n_embd={n_embd}（余 {rest}）；"
        "请换一对值",
    "RunConfig: init names a model, which has its own shape, found {name}={value}; leave one of "
    "the two out":
        "RunConfig: init 指定的模型自带形状，而现在 {name}={value}；请去掉其中之一",
    "GPTConfig: unknown preset {name}; known: {known}":
        "GPTConfig: 未知的预设 {name}；可用的预设: {known}",
    "{owner}: {name} must be a list of names, found {value}":
        "{owner}: {name} 应为名称列表，而不是 {value}",
    "{owner}: {name} must be a function, found {value}":
        "{owner}: {name} 应为函数，而不是 {value}",
    "{owner}: {name} must be true or false, found {value}":
        "{owner}: {name} 应为 true 或 false，而不是 {value}",
    "{owner}: expected the fields by name, found {value}":
        "{owner}: 应为字段名到值的映射，而不是 {value}",
    "{owner}: {name} must be a TrainConfig, found {value}":
        "{owner}: {name} 应为 TrainConfig，而不是 {value}",
    "{owner}: speculate={n} guesses for one continuation and cannot go with beam={beam}; set one "
    "of them to its default":
        "{owner}: speculate={n} 只适用于单个续写，不能与 beam={beam} 同用；请将其中之一设为默认值",
    "{owner}: logit_bias must be {{token id: number}}, found {value}":
        "{owner}: logit_bias 应为 {{词的 id: 数}}，而不是 {value}",
    "{owner}: logit_bias names a token id twice; name it once":
        "{owner}: logit_bias 中有重复的词 id；请只写一次",
    "{owner}: stop must be a list of texts that are not empty, found {value}":
        "{owner}: stop 应为非空文本的列表，而不是 {value}",
    "{owner}: expected {expected}, found {found}":
        "{owner}: 应为{expected}，而不是{found}",
    "AdamW: betas must be two numbers, found {value}":
        "AdamW: betas 应为两个数，而不是 {value}",
    "optimizer: unknown kind {name}; known: {known}":
        "optimizer: 未知的种类 {name}；可用的种类: {known}",
    "{owner}: unknown {name} {value}; known: {known}":
        "{owner}: 未知的 {name} {value}；可用: {known}",
    "--{name} is of the schedules {schedules}, found {value}; leave it out, or name one of them by "
    "--schedule":
        "--{name} 只用于 {schedules}，而学习率按 {value} 变化；"
        "请去掉它，或用 --schedule 指定其中之一",
    "freeze: no parameter is named like '{pattern}'; gpt.parameters() lists the names":
        "freeze: 没有名称符合 '{pattern}' 的参数；gpt.parameters() 列出所有名称",
    "CGPT_ISA: unknown instruction set '{name}'; known: {known}":
        "CGPT_ISA: 未知的指令集 '{name}'；可用的指令集: {known}",
    "CGPT_ISA: this processor has no {name}; use {other} or leave CGPT_ISA unset":
        "CGPT_ISA: 这个处理器不支持 {name}；请改用 {other}，或不设置 CGPT_ISA",
    "CGPT_ISA: {name} was not built into this installation; leave CGPT_ISA unset":
        "CGPT_ISA: 安装时没有编译 {name}；请不要设置 CGPT_ISA",
    "CGPT_THREADS: found '{value}', expected {least} to {most}; correct it or leave CGPT_THREADS "
    "unset":
        "CGPT_THREADS: 应在 {least} 到 {most} 之间，而不是 '{value}'；"
        "请改正，或不设置 CGPT_THREADS",
    # model
    "arena: weights have dtype {dtype} and shape {shape}, expected contiguous float32 {wanted}":
        "arena: 权重的类型为 {dtype}，形状为 {shape}，应为连续的 float32，形状 {wanted}",
    "arena: this model's weights are {form}, which cannot be changed; load it with "
    "weights=\"float32\"":
        "arena: 这个模型的权重为 {form}，不能修改；请用 weights=\"float32\" 加载",
    "load: training needs float32 weights, found weights={form}; pass training=False":
        "加载: 训练需要 float32 权重，而现在为 weights={form}；请用 training=False",
    "weights: found form {form} in groups of {group}; known: {known}, int8 in groups of 32 or 64":
        "权重: 形式 {form}，每组 {group} 个；可用的形式: {known}，int8 每组 32 或 64 个",
    "weights: {largest} in '{name}' is more than {form} can hold; use float32":
        "权重: '{name}' 中的 {largest} 超出 {form} 的范围；请用 float32",
    "{owner}: these weights are read-only; load the model with training=True to change them":
        "{owner}: 这些权重是只读的；要修改它们，请用 training=True 加载模型",
    "load_parameters: this model has no parameter '{name}'; parameters() lists what it has":
        "load_parameters: 这个模型没有参数 '{name}'；parameters() 列出它有的参数",
    "load_parameters: '{name}' is missing; give an array for every name of parameters()":
        "load_parameters: 缺少 '{name}'；请为 parameters() 的每个名称给出数组",
    "load_parameters: '{name}' has shape {shape}, expected {wanted}":
        "load_parameters: '{name}' 的形状为 {shape}，应为 {wanted}",
    "ids: found shape {shape}, expected (B, T) with at least one token, or (N,) together with "
    "offsets":
        "ids: 形状为 {shape}，应为至少有一个词的 (B, T)，或带 offsets 的 (N,)",
    "offsets: must run from 0 to the {n} tokens of the batch, found {value}":
        "offsets: 应从 0 到这一批的 {n} 个词，而不是 {value}",
    "ids: a document of {n} tokens, expected 1 to {most} (block_size)":
        "ids: 一篇文本有 {n} 个词，应为 1 到 {most} 个（block_size）",
    "{name}: found rows of unlike length, expected a rectangular array; lay them end to end with "
    "offsets, or pass them one by one":
        "{name}: 各行长度不同，应为矩形数组；请首尾相接并给出 offsets，或逐行传入",
    "{name}: found {dtype}, expected whole numbers": "{name}: 类型为 {dtype}，应为整数",
    "{name}: found {value}, expected {least} to {most}":
        "{name}: 发现 {value}，应在 {least} 到 {most} 之间",
    "infer: {n} tokens do not fit a cache that holds {held} of {capacity}":
        "infer: 缓存共 {capacity} 个词，已有 {held} 个，放不下 {n} 个",
    "the tokenizer has {n} tokens and the model only {rows} embeddings; they do not belong "
    "together":
        "分词器有 {n} 个词，模型只有 {rows} 个嵌入；二者不配套",
    "weights: this model's graph computes with float32 weights only, found form {form}; leave the "
    "form out":
        "weights: 此模型的计算图只用 float32 权重，而现在为 {form}；请不要指定",
    "{path}: a vocabulary of RustGPT-Chinese, which only an imported model can have; name another "
    "file, or words, chars or bpe":
        "{path}: 这是 RustGPT-Chinese 的词汇表，只能用于导入的模型；请指定其他文件，"
        "或 words、chars、bpe",
    # training
    "training state: expected an object, found {type}": "训练状态: 应为对象，而不是 {type}",
    "training state: unknown field '{name}'; known: {known}":
        "训练状态: 未知字段 '{name}'；可用的字段: {known}",
    "training state: {name} must be {type}, found {value}":
        "训练状态: {name} 应为 {type}，而不是 {value}",
    "training state: history must be a list of [phase, step, loss, held-out loss or null]":
        "训练状态: history 应为 [阶段, 步, 损失, 验证损失或 null] 的列表",
    "{phase}: no token of the documents carries loss; give texts, or dialogues with answers":
        "{phase}: 没有可学习的词；请给出文本，或有回答的对话",
    "{phase}: no token of the held-out documents carries loss; give texts, or dialogues with "
    "answers":
        "{phase}: 验证文本中没有可学习的词；请给出文本，或有回答的对话",
    "{phase}: found validation documents and val_fraction={fraction}; give one of the two":
        "{phase}: 同时给出了验证文本和 val_fraction={fraction}；请只给其中一个",
    "{phase}: {name}={value} needs held-out documents to look at; set val_fraction above 0 or give "
    "validation documents":
        "{phase}: {name}={value} 需要验证文本；请将 val_fraction 设为大于 0，或给出验证文本",
    "{phase}: the validation data ({paths}) has nothing of the kind that the phase trains on; add "
    "texts for a training on texts, dialogues for one on dialogues":
        "{phase}: 验证数据 ({paths}) 中没有该阶段所训练的那类数据；训练文本请加上文本，"
        "训练对话请加上对话",
    "{phase}: a warm-up of {warmup} steps in a training of {steps}: the learning rate does not "
    "reach {lr}; give a smaller warmup, or schedule_steps for as many as there will be":
        "{phase}: 训练只有 {steps} 步，而预热为 {warmup} 步：学习率达不到 {lr}；"
        "请减小 warmup，或将 schedule_steps 设为实际步数",
    "callbacks: expected a list of callbacks, found {value}":
        "callbacks: 应为回调的列表，而不是 {value}",
    "callbacks: {type} has a method {name}, which nothing calls; known: {known}":
        "callbacks: {type} 有方法 {name}，但不会被调用；可用的方法: {known}",
    "callbacks: expected functions, or objects with a method {known}, found {value}":
        "callbacks: 应为函数，或有方法 {known} 的对象，而不是 {value}",
    "{phase}: no documents to train on; give at least one":
        "{phase}: 没有可训练的文本；请至少给出一篇",
    "{phase}: val_fraction={fraction} holds documents out for evaluation and needs at least 2, "
    "found {n}; give more or set it to 0":
        "{phase}: val_fraction={fraction} 要留出验证文本，至少需要 2 篇，而只有 {n} 篇；"
        "请增加文本，或将其设为 0",
    "{phase}: step {step} was reached with other documents (or another val_fraction, "
    "too_long, loss_on, seed, batch_tokens or join_dialogues); give the same ones, or start the "
    "phase anew with llm.training_state.begin(...)":
        "{phase}: 第 {step} 步之前用的是其他文本（或其他 val_fraction、too_long、"
        "loss_on、seed、batch_tokens、join_dialogues）；"
        "请给出同样的文本，或用 llm.training_state.begin(...) 重新开始该阶段",
    "{phase}: the {what} is {value} at step {next} (learning rate {lr}); this step was not applied "
    "and the model is as after step {step}; lower the learning rate or clip the gradient":
        "{phase}: 第 {next} 步的{what}为 {value}（学习率 {lr}）；这一步没有生效，模型停在第 {step} "
        "步之后；请降低学习率，或裁剪梯度",
    "{phase}: the held-out loss is {value} after step {step}; lower the learning rate or clip the "
    "gradient":
        "{phase}: 第 {step} 步之后验证损失为 {value}；请降低学习率，或裁剪梯度",
    "no data to train on: name files for pre-training, for chat, or both":
        "没有训练数据: 请指定预训练文件或对话文件，或两者",
    "this model does not say on which data it was trained, so training cannot be resumed; train "
    "it further on data of your choice instead":
        "这个模型没有记录训练数据，无法恢复训练；请另选数据继续训练",
    "the model was saved without the optimizer's state, so {phase} cannot go on from step {step}; "
    "resume a checkpoint that holds it, or train the model further with continue_training()":
        "模型保存时没有带上优化器状态，{phase}无法从第 {step} 步接着训练；"
        "请恢复含有优化器状态的 checkpoint，或用 continue_training() 继续训练",
    "the {phase} data ({paths}) is not that with which the run was begun; put the old files back, "
    "train anew, or resume with new_data=True":
        "{phase}数据（{paths}）与开始训练时不同；请放回原来的文件，或重新训练，"
        "或用 new_data=True 在新数据上继续",
    "run: no data for the phase {name}; this run has {what}":
        "run: 阶段 {name} 没有数据；本次训练有: {what}",
    "{paths}: no dialogues in the chat data, only {n} texts; name them for pre-training instead":
        "{paths}: 对话数据中没有对话，只有 {n} 篇文本；请改为用于预训练",
    "resume: {phase} has already had {done} epochs of {all}; epochs counts all of them, give more "
    "than {least}":
        "resume: {phase}已训练 {done} 轮（共 {all} 轮）；epochs 是总轮数，请大于 {least}",
    # generating, chatting, measuring
    "{what} token ids must be between 0 and {most}, found {low} to {high}":
        "{what}的词 id 应在 0 到 {most} 之间，而不是 {low} 到 {high}",
    "all {n} tokens are banned; leave at least one": "全部 {n} 个词都被禁用；请至少留下一个",
    "the model's logits are not finite: its weights hold NaN or infinity; load or train another "
    "model":
        "模型的输出不是有限数: 权重中有 NaN 或无穷大；请加载或训练其他模型",
    "no_repeat_ngram={n} leaves no token that could follow; set it higher or to 0":
        "no_repeat_ngram={n} 使得没有词可选；请增大它，或设为 0",
    "SamplingConfig: stop names texts, which only LLM and ChatSession see; give token ids by the "
    "argument stop":
        "SamplingConfig: stop 是文本，只有 LLM 和 ChatSession 能用；请用参数 stop 给出词的 id",
    "generate_tokens: a cache holds one sequence, found several prompts; leave it out":
        "generate_tokens: 一个缓存只对应一个序列，而这里有多个提示；请不要给出缓存",
    "inspect: found {dtype} of shape {shape}, expected 1 to {most} whole numbers":
        "inspect: 发现形状 {shape} 的 {dtype}，应为 1 到 {most} 个整数",
    "LLM.score: text {n} has no token to predict; give at least one character, or a prompt before "
    "it":
        "LLM.score: 第 {n} 个文本（从 0 数起）没有可预测的词；请至少给出一个字符，或在前面加上提示",
    "LLM.score: pairs (prompt, text) have their own prompts; leave prompt out":
        "LLM.score: (提示, 文本) 对已有各自的提示；请不要再给 prompt",
    "LLM.score: {prompts} prompts for {texts} texts; give one for all, or one for each":
        "LLM.score: {texts} 个文本却有 {prompts} 个提示；请给一个共用的提示，或每个文本一个",
    "LLM.embed: text {n} has no token; give at least one character":
        "LLM.embed: 第 {n} 个文本（从 0 数起）没有词；请至少给出一个字符",
    "{owner}: expected a list of token ids for {name}, found {value}":
        "{owner}: {name} 应为词 id 的列表，而不是 {value}",
    "{owner}: expected a text or a list of texts, found {value}":
        "{owner}: 应为文本或文本列表，而不是 {value}",
    "{owner}: expected a text at texts[{n}], found {value}":
        "{owner}: texts[{n}] 应为文本，而不是 {value}",
    "{owner}: expected a list of texts or dialogues, found {found}":
        "{owner}: 应为文本或对话的列表，而不是{found}",
    "{owner}: documents[{n}]: {reason}":
        "{owner}: documents[{n}] 有误: {reason}",
    "{owner}: documents[{n}]: found {value}, expected a text, a dialogue (a list of messages) or a "
    "row such as {{'messages': [...]}}":
        "{owner}: documents[{n}] 为 {value}，应为文本、对话（消息列表）或 "
        "{{'messages': [...]}} 这样的一行",
    "{owner}: expected a list of messages, found {value}":
        "{owner}: 应为消息列表，而不是 {value}",
    "{owner}: messages[{n}]: found {value}, expected a Message or {{'role', 'content'}}":
        "{owner}: messages[{n}] 为 {value}，应为 Message 或 {{'role', 'content'}}",
    "ChatSession.restore: the snapshot is of another model; take one of this session":
        "ChatSession.restore: 快照属于另一个模型；请使用本会话的快照",
    "ChatSession: there is no turn {turn}, the session has {n}":
        "ChatSession: 没有第 {turn} 轮，会话共有 {n} 轮",
    "{path}: not a session that cgpt saved ({reason}); choose another file":
        "{path}: 不是 cgpt 保存的会话（{reason}）；请选择其他文件",
    "ids must be a list of at least one whole number, found {dtype} of shape {shape}; start a text "
    "with bos":
        "ids 应为至少有一个整数的列表，而不是形状 {shape} 的 {dtype}；文本请以 bos 开头",
    "ids must be between 0 and {most}, found {low} to {high}":
        "ids 应在 0 到 {most} 之间，而不是 {low} 到 {high}",
    "chat: the system message and the marks of a turn take {n} of the {capacity} tokens of "
    "context, at most {most} may be; {advice}":
        "chat: 系统消息和一轮对话的标记占用上下文 {capacity} 个词中的 {n} 个，最多 {most} 个；"
        "{advice}",
    "LLM.loss: no text with a token to predict; give at least one":
        "LLM.loss: 没有可预测的文本；请至少给出一条",
    "evaluate: no text to predict; give at least one document with text, or a dialogue with an "
    "answer":
        "evaluate: 没有可预测的文本；请至少给出一篇有文字的文本，或一段有回答的对话",
}
