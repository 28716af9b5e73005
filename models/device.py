"""Starting TensorFlow: on which device, and so that the same seed gives the same bytes."""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Callable, Iterable

from models import memory


def start(gpu: int | None = None, stacks: int = 1, cores: int | None = None) -> int:
    """Import TensorFlow for a GPU (its CUDA index) or, with None, for whatever there is.

    Says so when a wanted GPU is missing.

    stacks: how many independent stacks there are to train. Returns how many to train at a time, each in a thread of its
    own: on a CPU one a core as far as they go, and the cores that are left over are shared out to each stack's
    operations. The steps of a small network are too short to share out: on 2 cores, 2 stacks side by side train twice
    as fast as one after the other on both. cores: how many to use, all that the process may by default. Must run before
    anything else imports TensorFlow.
    """
    memory.check_address_space()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(gpu)
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")  # else it warns that each stack is traced anew, which is meant
    has_gpu = bool(tf.config.list_physical_devices("GPU"))
    if gpu is not None and not has_gpu:
        print(f"no GPU {gpu} found: training on the CPU", flush=True)
    tf.config.experimental.enable_op_determinism()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    # This pass regroups sums by what else a graph computes, so that a recorded training would differ from an unrecorded
    # one in the last bit.
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})
    cores = cores or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    workers = 1 if has_gpu else max(1, min(stacks, cores))
    tf.config.threading.set_intra_op_parallelism_threads(cores // workers)
    return workers


def side_by_side(workers: int, work: Callable, jobs: Iterable[tuple]) -> None:
    """Call work(*job) for every job, `workers` at a time, each in a thread.

    The first that raises cancels those that have not begun.
    """
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        begun = [pool.submit(work, *job) for job in jobs]
        try:
            for job in begun:
                job.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
