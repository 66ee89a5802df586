"""What users read while they watch, plot, inspect and evaluate; part of messages.MESSAGES."""

from __future__ import annotations

# key: (Chinese, English)
VIEW: dict[str, tuple[str, str]] = {
    # the live display: labels of fields
    "f_epoch": ("轮", "epoch"),
    "f_step": ("步", "step"),
    "f_loss": ("损失", "loss"),
    "f_val": ("验证", "held-out"),
    "f_lr": ("学习率", "lr"),
    "f_speed": ("词/秒", "tok/s"),
    "f_norm": ("梯度", "gradient"),
    "f_memory": ("内存", "memory"),
    "f_curve": ("曲线", "curve"),
    "f_sample": ("样本 [步 {step}]", "sample [step {step}]"),
    "p_norm": ("梯度 {norm}", "gradient {norm}"),
    # plot
    "col_run": ("运行", "run"),
    "col_first": ("首步", "first"),
    "col_last": ("末段", "last"),
    "col_held_out": ("验证", "held-out"),
    "picture_saved": ("图已保存: {path}", "picture saved: {path}"),
    "no_font": ("没有找到中文字体，图中文字改用英文；请安装 {font} "
                "(Debian/Ubuntu: apt install fonts-noto-cjk)，或用 --font FILE 指定",
                "no font with Chinese letters was found, so the labels are English; install {font} "
                "(Debian/Ubuntu: apt install fonts-noto-cjk), or name one by --font FILE"),
    "shown_as": ("字体缺字，图中用编号: {names}",
                 "numbers in the picture, where the font lacks letters: {names}"),
    "bad_picture": ("'{value}' 应以 .png、.svg 或 .pdf 结尾",
                    "'{value}' must end in .png, .svg or .pdf"),
    # inspect
    "col_token": ("词", "token"),
    "col_probability": ("概率", "prob."),
    "col_rank": ("名次", "rank"),
    "col_alternatives": ("最可能的词", "most likely"),
    "needs_picture": ("--layer 和 --head 要与 -o FILE 一起用",
                      "--layer and --head need a picture: -o FILE"),
    "head_needs_layer": ("--head 要与 --layer 一起用", "--head needs --layer"),
    "next_token": ("(下一词)", "(next)"),
    "inspect_total": ("共 {tokens} 个词, {characters} 个字符: 每字符 {bits} 比特",
                      "{tokens} tokens, {characters} characters: {bits} bits per character"),
    # info
    "toml_alone": ("--toml 需要 MODEL，且不与 --json 一起用",
                   "--toml needs a MODEL and goes without --json"),
    # the heads of tables of info and diff
    "head_kind": ("种类", "kind"),
    "head_name": ("名称", "name"),
    "head_type": ("类型", "type"),
    "head_parameters": ("参数", "parameters"),
    "head_dtype": ("数值", "dtype"),
    "head_shape": ("形状", "shape"),
    "head_offset": ("位置", "offset"),
    "head_bytes": ("字节", "bytes"),
    "head_crc32": ("校验和", "crc32"),
    "head_changed": ("不同", "changed"),
    "head_elements": ("元素", "elements"),
    "head_largest": ("最大差", "largest"),
    "head_relative": ("相对差", "relative"),
    # eval
    "eval_by_file": ("每字符比特数，按文件", "bits per character, by file"),
    "eval_difference": ("与 {base} 的差别", "difference from {base}"),
    "row_difference": ("每字符比特数之差", "bits per character"),
    "row_interval": ("95% 区间", "95 % interval"),
    "row_better": ("更好的文档", "better documents"),
    "row_exact": ("完全一致", "exact"),
    "row_contains": ("包含答案", "contains"),
    "row_questions": ("问题数", "questions"),
    "answers_shortened": ("{all} 个问题中有 {n} 个超出上下文，开头的词未参与回答",
                          "{n} of {all} questions are longer than the context; their first tokens "
                          "are left out"),
    "answering": ("正在回答: {done}/{all}", "answering: {done}/{all}"),
    "col_file": ("文件", "file"),
    "col_measure": ("指标", "measure"),
}

FORMATS = (".png", ".svg", ".pdf")      # of pictures

# Labels of the pictures of `plot`; they stay English where no font has Chinese letters.
FIGURE: dict[str, tuple[str, str]] = {
    "pretrain": ("预训练", "pre-training"),
    "finetune": ("微调", "fine-tuning"),
    "other": ("训练", "training"),
    "step": ("步", "step"),
    "loss": ("损失 (nats/词)", "loss (nats/token)"),
    "train": ("训练", "training"),
    "held_out": ("验证", "held-out"),
}
# Labels of the pictures of `inspect`.
ATTENTION: dict[str, tuple[str, str]] = {
    "key": ("被关注的词", "attended to"),
    "query": ("当前词", "from"),
    "weight": ("注意力权重", "attention weight"),
    "layer": ("第 {layer} 层，各头平均", "layer {layer}, mean of heads"),
    "head": ("第 {layer} 层，第 {head} 头", "layer {layer}, head {head}"),
}
