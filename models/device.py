"""Starting TensorFlow: on which device, and so that the same seed gives the same bytes."""

from __future__ import annotations

import argparse
import atexit
import concurrent.futures
import fcntl
import gc
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from command_line import COUNT, refuse
from files import at_end
from models import memory
from results import layout

TEMPORARY = "gradient-shaping-"  # a process' folder in the temporary one


def start(gpu: int | None = None, stacks: int = 1, cores: int | None = None) -> int:
    """Import TensorFlow for a GPU (its CUDA index) or, with None, for whatever there is.

    Says so when a wanted GPU is missing.

    stacks: how many independent stacks there are to train. Returns how many to train at a time, each in a thread of its
    own: on a CPU one a core as far as they go, and the cores that are left over are shared out to each stack's
    operations. The steps of a small network are too short to share out: on 2 cores, 2 stacks side by side train twice
    as fast as one after the other on both. A few more stacks than cores all run at once, where otherwise cores would be
    idle at the end: five take as long on 2 cores as five halves. cores: how many to use, all that the process may by
    default. Must run before anything else imports TensorFlow.
    """
    memory.check_address_space()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_HOME", str(layout.CACHE / "keras"))
    tempfile.tempdir = str(temporary_folder())  # TensorFlow leaves the code that it generates there when it is killed
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible(gpu)
    gc.disable()  # what an import makes stays: looking for garbage among it takes a fifth of the import's time,
    import tensorflow as tf

    gc.freeze()  # and each later look at it, such as that at the process' end, a sixth of a second
    gc.enable()
    tf.get_logger().setLevel("ERROR")  # else it warns that each stack is traced anew, which is meant
    has_gpu = bool(tf.config.list_physical_devices("GPU"))
    if gpu is not None and not has_gpu:
        print(f"no GPU {gpu} found: training on the CPU", flush=True)
    tf.config.experimental.enable_op_determinism()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    # This pass regroups sums by what else a graph computes, so that a recorded training would differ from an unrecorded
    # one in the last bit.
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})
    there = cores_there()
    cores = min(cores or there, there)
    workers = 1 if has_gpu else at_a_time(stacks, cores)
    tf.config.threading.set_intra_op_parallelism_threads(max(cores // workers, 1))
    return workers


def at_a_time(stacks: int, cores: int) -> int:
    """How many of some stacks to train at a time on a CPU: one a core; or all, where they are few and the last round
    would leave cores idle.
    """
    if cores < stacks < 3 * cores and stacks % cores:
        return stacks
    return max(1, min(stacks, cores))


def visible(gpu: int) -> str:
    """What CUDA calls a GPU, by its index among those that CUDA_VISIBLE_DEVICES leaves the process: a Slurm job's first
    may be the node's fourth.
    """
    left = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return left[gpu] if gpu < len(left) else str(gpu)


def cores_there() -> int:
    """How many cores the process may use: those that it may run on, and no more than CORES in the environment or the
    Slurm job has, which may not keep it from others.
    """
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    for name in ("CORES", "SLURM_CPUS_PER_TASK"):
        if text := os.environ.get(name):
            try:
                there = min(there, int(COUNT(text)))
            except argparse.ArgumentTypeError as error:
                refuse(f"{name}={error}; give one in the environment, or leave it out")
    return there


def temporary_folder() -> Path:
    """A folder for this process alone, which goes with it; what killed ones have left is removed first."""
    place = Path(tempfile.gettempdir())
    if place.name.startswith(TEMPORARY):
        return place  # there already
    for left in place.glob(f"{TEMPORARY}*"):
        if _held(left):
            shutil.rmtree(left, ignore_errors=True)
    made = Path(tempfile.mkdtemp(prefix=f".{TEMPORARY}"))
    _held(made)
    folder = made.rename(made.with_name(made.name[1:]))  # held before another process knows its name
    for ways_to_end in (atexit.register, at_end.append):  # by itself, and by a signal
        ways_to_end(lambda: shutil.rmtree(folder, ignore_errors=True))
    return folder


def _held(folder: Path) -> bool:
    """Take a folder, as long as this process lives; False where another has it."""
    try:
        fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


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
