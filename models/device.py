"""Starting TensorFlow: on which device, and so that the same seed gives the same bytes."""
from __future__ import annotations

import os


def start(gpu: int | None) -> None:
    """Import TensorFlow for a GPU (its CUDA index) or, with None, for whatever there is; says so when a wanted GPU is missing.

    Must run before anything else imports TensorFlow.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(gpu)
    import tensorflow as tf

    if gpu is not None and not tf.config.list_physical_devices("GPU"):
        print(f"no GPU {gpu} found: training on the CPU", flush=True)
    tf.config.experimental.enable_op_determinism()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    # This pass regroups sums by what else a graph computes, so that a recorded training would differ from an unrecorded one in the last bit.
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})
