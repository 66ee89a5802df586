"""The four scenarios of the guided run as the guide shows them; what varies is in <angles>."""

BANNER = """\
╔═══════════════════════════════════════════════════════════╗
║                CGPT - 中文GPT模型训练系统                 ║
╚═══════════════════════════════════════════════════════════╝

"""

SAVE_BOX = """\
╔═══════════════════════════════════════════════════════════╗
║                    模型保存选项                           ║
╚═══════════════════════════════════════════════════════════╝

"""

CHAT_BOX = """\

╔═══════════════════════════════════════════════════════════╗
║                    交互模式                               ║
╚═══════════════════════════════════════════════════════════╝

💡 输入问题后按回车生成回答
💡 输入 'exit' 退出程序
💡 输入 'clear' 清空对话上下文
💡 输入 'save' 保存当前模型

"""

FORMATS = """\

选择保存格式:
  1) 二进制格式 (.bin) - 推荐，文件小、速度快
  2) JSON格式 (.json) - 人类可读，便于调试
  3) 两种格式都保存

"""

TRAIN = (
    BANNER
    + """\
📝 未检测到已保存的模型，将开始训练新模型...
<training>
💾 是否保存预训练checkpoint? (y/n): y
✓ 预训练checkpoint已保存
<training>
✅ 训练完成!

"""
    + SAVE_BOX
    + """\
是否保存当前模型? (y/n): y
"""
    + FORMATS
    + """\
请选择 (1/2/3): 1

文件名 (默认: checkpoints/model_final.bin):\x20
✅ 模型已保存: checkpoints/model_final.bin
"""
    + CHAT_BOX
    + "👤 用户: "
)

LOAD = (
    BANNER
    + """\
🔍 检测到已保存的模型:
  ✓ checkpoints/model_final.bin
  ✓ checkpoints/model_pretrained.bin

是否加载已有模型? (y/n): y

选择要加载的模型:
  1) checkpoints/model_final.bin (最终模型)
  2) checkpoints/model_pretrained.bin (预训练checkpoint)
请选择 (1/2): 1

📂 正在加载模型: checkpoints/model_final.bin...
   [1] 重建层... ✓
   [2] 重建层... ✓
   [3] 重建层... ✓
   [4] 重建层... ✓
   [5] 重建层... ✓

✅ 模型加载成功!
  • 词汇量: <number>
  • 总参数: <number>
  • 网络架构: Embedding, Block, Block, LayerNorm, TiedHead

是否继续训练此模型? (y/n): """
)

SKIP = (
    LOAD
    + """\
n

✓ 跳过训练，直接进入交互模式
"""
    + CHAT_BOX
    + "👤 用户: "
)

CONTINUE = (
    LOAD
    + """\
y

🔄 继续训练模式

训练轮数 (默认50): 3
学习率 (默认0.0001): 0.00005

开始继续训练 (3 epochs, lr=0.00005)...
<training>
✅ 继续训练完成!

"""
    + SAVE_BOX
    + """\
是否保存当前模型? (y/n): y
"""
    + FORMATS
    + """\
请选择 (1/2/3): 1

文件名 (默认: checkpoints/model_final.bin): checkpoints/mine.bin
✅ 模型已保存: checkpoints/mine.bin
"""
    + CHAT_BOX
    + "👤 用户: "
)

SAVE_BOTH = (
    """\
save
"""
    + FORMATS
    + """\
请选择 (1/2/3): 3

保存二进制格式...
✓ 二进制格式已保存: checkpoints/model_final.bin
保存JSON格式...
✓ JSON格式已保存: exports/model_final.json

👤 用户: """
)
