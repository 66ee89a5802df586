"""Chinese of the sentences about text, vocabularies and data files; see error_sentences.py."""

from __future__ import annotations

DATA_SENTENCES: dict[str, str] = {
    # tokens and text
    "Tokenizer.{call}: expected a str, found {type}":
        "Tokenizer.{call}: 应为 str，而不是 {type}",
    "token ids are whole numbers, found {value}": "词的 id 应为整数，而不是 {value}",
    "token id {value} is outside the vocabulary, expected 0 to {most}":
        "词的 id {value} 不在词汇表内，应在 0 到 {most} 之间",
    "Tokenizer.train: text {n} is not a str, found {type}":
        "Tokenizer.train: 第 {n} 条文本应为 str，而不是 {type}",
    "Tokenizer.train: no text to learn a vocabulary from; give at least one string that is not "
    "empty":
        "Tokenizer.train: 没有可用来学习词汇的文本；请至少给出一个非空字符串",
    "vocab_size must be at least {least} ({special} special tokens, 256 bytes and a character), "
    "found {value}":
        "vocab_size 应至少为 {least}（{special} 个特殊词、256 个字节和一个字符），而不是 {value}",
    "saved vocabulary: expected an object with 'words' and 'scores'":
        "保存的词汇表: 应为含 'words' 和 'scores' 的对象",
    "saved vocabulary: expected two lists of one length under 'words' and 'scores'":
        "保存的词汇表: 'words' 和 'scores' 应为两个等长的列表",
    "saved vocabulary: word {n} must be a string of 1 to {most} characters, found {value}":
        "保存的词汇表: 第 {n} 个词应为 1 到 {most} 个字符的字符串，而不是 {value}",
    "saved vocabulary: word {n} holds half a character, found {value}":
        "保存的词汇表: 第 {n} 个词含有半个字符: {value}",
    "saved vocabulary: word {n} occurs twice, found {value}":
        "保存的词汇表: 第 {n} 个词重复出现: {value}",
    "saved vocabulary: the special token '{name}' is missing":
        "保存的词汇表: 缺少特殊词 '{name}'",
    "saved vocabulary: the score of word {n} must be a finite number, found {value}":
        "保存的词汇表: 第 {n} 个词的分数应为有限数，而不是 {value}",
    "saved vocabulary: unknown kind {value}; known: {known}":
        "保存的词汇表: 未知的种类 {value}；可用的种类: {known}",
    "saved vocabulary: word {n} must be one character in a vocabulary of characters, found {value}":
        "保存的词汇表: 字的词汇表中第 {n} 个词应为一个字符，而不是 {value}",
    "saved vocabulary: word {n} must be written in the characters that stand for bytes, found "
    "{value}":
        "保存的词汇表: 第 {n} 个词应由代表字节的字符写成，而不是 {value}",
    "saved vocabulary: word {n} must stand for at least two bytes, found {value}":
        "保存的词汇表: 第 {n} 个词应至少代表两个字节，而不是 {value}",
    "RunConfig: tokenizer must be {known}, or a .json or .bin file that holds a vocabulary, found "
    "{value}":
        "RunConfig: tokenizer 应为 {known}，或保存了词汇表的 .json 或 .bin 文件，而不是 {value}",
    "RunConfig: mix must be pairs of a path and a weight, found {value}":
        "RunConfig: mix 应为路径和权重的对，而不是 {value}",
    "RunConfig: the weight of {path} in mix must be between 0 and 1000, found {value}":
        "RunConfig: mix 中 {path} 的权重应在 0 到 1000 之间，而不是 {value}",
    "{name}: no file of the data is {path} or lies in it; name a file or folder of the data":
        "{name}: 数据中没有文件是 {path} 或在其中；请指定数据中的文件或文件夹",
    "{phase}: the weights of mix leave nothing to train on; give at least one above 0":
        "{phase}: 按 mix 的权重没有可训练的内容；请至少给出一个大于 0 的权重",
    "these documents were encoded with another vocabulary than the model's; encode them with "
    "llm.tokenizer": "这些文本是用另一个词汇表编码的，不是此模型的；请用 llm.tokenizer 编码",
    "a document of {n} tokens; cut it into smaller ones": "一篇文本有 {n} 个词；请分成较短的几篇",
    "{path}: the cache cannot be written or read ({reason}); name another folder, with room for "
    "the tokens":
        "{path}: 无法读写缓存（{reason}）；请指定另一个有足够空间的文件夹",
    "a data file was changed while it was read; start again when nothing writes to the data":
        "数据文件在读取时被改动；请在没有程序写入时重新开始",
    "{path}: the cache was changed while it was written; delete this folder":
        "{path}: 缓存在写入时被改动；请删除此文件夹",
    "{phase}: {n} of {most} documents are longer than the context of {longest} tokens, the first "
    "is number {number} with {size} tokens; shorten them, or cut them or leave them out by "
    "too_long 'cut' or 'drop'":
        "{phase}: {most} 篇中有 {n} 篇长于上下文 {longest} 词，第一处为第 {number} 篇，{size} 词；"
        "请缩短，或用 too_long 'cut' 切开、'drop' 略去",
    "{phase}: all {n} documents are longer than the context of {longest} tokens, and nothing is "
    "left of them; shorten them, or train a model with a longer context":
        "{phase}: 全部 {n} 篇都长于上下文 {longest} 词，没有剩下可训练的内容；请缩短，"
        "或训练上下文更长的模型",
    "{owner}: turns of the documents were left out or joined ({counts}); take them out of the rows "
    "to be rid of this warning":
        "{owner}: 对话中有消息被省去或接起（{counts}）；从数据中去掉它们即可不再提示",
    # data files
    "{path}: no usable document in it, expected items, each {expected}":
        "{path}: 没有可用的文本；每一项应为{expected}",
    "no data: name at least one file or folder ({suffixes})":
        "没有数据: 请至少指定一个文件或文件夹（{suffixes}）",
    "{path}: no data in this folder, expected files whose names end in {suffixes}; name another "
    "one, or the files":
        "{path}: 文件夹中没有数据，应有文件名以 {suffixes} 结尾的文件；请指定其他文件夹或文件",
    "{path}: no row of it can be used, {n} are invalid, the first is {sentence}; mend them, or "
    "leave out the file":
        "{path}: 没有一行能用，{n} 行有误，第一处: {sentence}；请修改，或去掉该文件",
    "{n} invalid rows, the first is {sentence}; mend them, or leave them out by skip_invalid=True":
        "{n} 行不能用，第一处: {sentence}；请修改，或用 skip_invalid=True 略去",
    "{n} invalid rows in {files} files, the first is {sentence}; mend them, or leave them out by "
    "skip_invalid=True":
        "{files} 个文件中有 {n} 行不能用，第一处: {sentence}；请修改，或用 skip_invalid=True 略去",
    "{path}: reading it needs the package {name}; install the extra: pip install 'cgpt[data]'":
        "{path}: 读取它需要软件包 {name}；请运行 pip install 'cgpt[data]'",
    "{path}: what was packed as {name} is damaged or cut short; copy or make the file again":
        "{path}: 以 {name} 压缩的内容已损坏或不完整；请重新复制或制作该文件",
    "{path}: an object of more than {n} bytes unpacked; unpack the file, or make a list of its "
    "items":
        "{path}: 解压后超过 {n} 字节的对象；请先解压该文件，或改成若干项的列表",
    "{path}: not a Parquet file that can be read ({detail}); make the file again":
        "{path}: 不是可以读取的 Parquet 文件（{detail}）；请重新制作该文件",
    "{path}, line {line}: more than {n} characters without a line end; mend the file":
        "{path} 第 {line} 行: 超过 {n} 个字符没有换行；请修改该文件",
    "{path}, line 1: a record that cannot be read ({reason}); mend its quotation marks":
        "{path} 第 1 行: 无法读取的记录（{reason}）；请修改其中的引号",
    "{path}: the column {name} occurs twice; rename one of the two":
        "{path}: 列 {name} 重复出现；请将其中一列改名",
    "{path}: found the columns {names}, expected text, messages, or a question and its answer, "
    "such as instruction and output":
        "{path}: 发现列 {names}，应有 text、messages，或一问一答，例如 instruction 和 output",
    "{path}: no such file or folder; check the path":
        "{path}: 没有这个文件或文件夹；请检查路径",
    "{path}: the name must end in {suffixes} so that the form is known; rename the file":
        "{path}: 文件名应以 {suffixes} 结尾，才能知道格式；请重命名该文件",
    "{path}: not a regular file; name a file or folder with data":
        "{path}: 不是普通文件；请指定有数据的文件或文件夹",
    "{path}: the file is empty; put documents or dialogues into it":
        "{path}: 文件为空；请放入文本或对话",
    "{path}, item {n} (line {line}): {reason}": "{path} 第 {n} 项（第 {line} 行）: {reason}",
    "{path}, item {n}: {reason}": "{path} 第 {n} 项: {reason}",
    "{path}, row {n}: {reason}": "{path} 第 {n} 行: {reason}",
    "{path}: in the object around the list {reason}": "{path}: 列表外层的对象中，{reason}",
    "{path}, line {line}: {reason}": "{path} 第 {line} 行: {reason}",
    "stdin, line {line}: found byte {byte} at byte {column} of the line, expected UTF-8; convert "
    "the text, for example with iconv":
        "标准输入第 {line} 行: 第 {column} 个字节为 {byte}，应为 UTF-8；请转换编码，例如用 iconv",
    "{path}, line {line}: found byte {byte} at byte {column} of the line, expected UTF-8{guess}; "
    "convert the file, for example with iconv -f {name} -t UTF-8":
        "{path} 第 {line} 行: 第 {column} 个字节为 {byte}，应为 UTF-8{guess}；请转换文件编码，"
        "例如 iconv -f {name} -t UTF-8",
    "{path}, line {line}, column {column}: broken JSON ({reason}), found {text}; mend the file"
    "{guess}":
        "{path} 第 {line} 行第 {column} 列: JSON 有误（{reason}），发现 {text}；请修改该文件"
        "{guess}",
    "{path}, line {line}, column {column}: broken JSON ({reason}), found the end; mend the "
    "file{guess}":
        "{path} 第 {line} 行第 {column} 列: JSON 有误（{reason}），文件到此结束；请修改该文件"
        "{guess}",
    "{path}: JSON that cannot be read ({reason}); mend the file":
        "{path}: 无法读取的 JSON（{reason}）；请修改该文件",
    "{path}, line {line}: JSON that cannot be read ({reason}); mend the file":
        "{path} 第 {line} 行: 无法读取的 JSON（{reason}）；请修改该文件",
    "{path}: found {found}, expected a list of items, or an object with one such list; an item is "
    "{expected}":
        "{path}: 发现{found}，应为若干项的列表，或只含一个这种列表的对象；每一项为{expected}",
    "{path}: found {found}, expected a list of items; an item is {expected}":
        "{path}: 发现{found}，应为若干项的列表；每一项为{expected}",
    "{path}: the data that comes with cgpt is missing; install cgpt again":
        "{path}: 缺少 cgpt 自带的数据；请重新安装 cgpt",
    "dialogue: expected Message(role, content) one after the other, found {value}":
        "对话: 应为一连串 Message(role, content)，而不是 {value}",
    "dialogue: {reason}": "对话: {reason}",
    "Message: {name} must be {expected}, found {value}":
        "Message: {name} 应为{expected}，而不是 {value}",
}
