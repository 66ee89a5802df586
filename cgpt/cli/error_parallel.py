"""Chinese of the sentences about training by several processes, as error_sentences.py has them."""

from __future__ import annotations

PARALLEL_SENTENCES: dict[str, str] = {
    "parallel: training over MPI needs the package mpi4py; install the extra: pip install "
    "'cgpt[mpi]'":
        "并行训练: 通过 MPI 训练需要 mpi4py；请安装附加组件: pip install 'cgpt[mpi]'",
    "parallel: mpi4py found no MPI library ({detail}); install one: pip install mpich":
        "并行训练: mpi4py 找不到 MPI 库（{detail}）；请安装一个: pip install mpich",
    "parallel: mpiexec started {n} processes, but they do not find each other: it belongs to "
    "another MPI than that of mpi4py ({library}); use the mpiexec of that one, for pip's mpich "
    "{path}":
        "并行训练: mpiexec 启动了 {n} 个进程，但它们找不到彼此: 它与 mpi4py 所用的 MPI"
        "（{library}）不是同一个；请用后者的 mpiexec，pip 安装的 mpich 为 {path}",
    "parallel: mpiexec is missing, which starts the processes; install the extra: pip install "
    "'cgpt[mpi]'":
        "并行训练: 没有用来启动各进程的 mpiexec；请安装附加组件: pip install 'cgpt[mpi]'",
    "parallel: this is one process alone; start several by mpiexec, for example: {command} -n 2 "
    "python PROGRAM.py":
        "并行训练: 现在只有一个进程；请用 mpiexec 启动多个，例如: {command} -n 2 python 程序.py",
    "parallel: process {n} on {host} has other {what} than process 0 (found {value}, expected "
    "{wanted}); {advice}":
        "并行训练: {host} 上的进程 {n} 与进程 0 的{what}不同（发现 {value}，应为 {wanted}）；"
        "{advice}",
    "instruction set": "指令集",
    "install the same version everywhere": "请在所有机器上安装同一版本",
    "set CGPT_ISA to one that all of them have":
        "请将 CGPT_ISA 设为各进程都有的指令集",
    "give all of them the same model, data and settings":
        "请让各进程使用相同的模型、数据与设置",
    "parallel: MPI could not go on ({detail}); see which process ended first, then resume the "
    "training":
        "并行训练: MPI 无法继续（{detail}）；请查看哪个进程先结束，然后恢复训练",
    "parallel: no answer of the other processes for {n} seconds; see whether they still run, then "
    "resume the training":
        "并行训练: 其他进程已 {n} 秒没有回应；请查看它们是否仍在运行，然后恢复训练",
    "parallel: mpiexec has ended; this process stops as well":
        "并行训练: mpiexec 已结束；此进程也随之停止",
    "process {n} of {size} on {host} failed: {reason}":
        "{host} 上的进程 {n}（共 {size} 个）出错: {reason}",
    "process {n} of {size} on {host} is gone (killed, or out of memory?); the others stop":
        "{host} 上的进程 {n}（共 {size} 个）已不在（被终止，或内存不足?）；其余进程停止",
    "{path}: not the data that process 0 has; give all processes the same files":
        "{path}: 与进程 0 的数据不同；请让各进程使用相同的文件",
    "mpiexec started {n} processes that know nothing of each other; add --parallel mpi, or "
    "--parallel none where each is to train for itself":
        "mpiexec 启动了 {n} 个互不相识的进程；请加上 --parallel mpi，若要各自单独训练则用 "
        "--parallel none",
}
