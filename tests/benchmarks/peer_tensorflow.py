"""Milliseconds a training step of this suite's stack, Keras, or TensorFlow Privacy's variants: called by peers.py."""

from __future__ import annotations

import concurrent.futures
import math
import os
import sys
from pathlib import Path

from units import UNITS, Unit, data, milliseconds, report

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def network(unit: Unit):
    """The Keras model; of BadNet and the dense networks the suite's own."""
    from models import networks

    if unit.filters:
        return networks.build("badnet", (28, 28, 1), unit.units[-1], 0)
    return networks.build("lr" if len(unit.units) == 1 else "shallow-mlp", (unit.features,), unit.units[-1], 0)


def stack(unit: Unit) -> dict[str, float]:
    """The stack, as many side by side as there are cores, a step and replica.

    A network with convolutions has all cores for itself.
    """
    from models import device

    workers = device.start(None, 1 if unit.filters else os.cpu_count())
    import numpy as np

    from models import minibatches, stack
    from models.shaping import UNDEFENDED, Shaping

    x, y = data(unit)
    shaping = UNDEFENDED
    if unit.clip_norm is not None:
        shaping = Shaping.clip(unit.clip_norm, unit.clip_norm * unit.noise_multiplier)
    rows = minibatches.Rows.of(x, y, np.zeros(len(y), bool), unit.replicas)
    engines = [
        stack.Stack(network(unit), [shaping] * unit.replicas, unit.optimizer, unit.learning_rate, 0)
        for _ in range(workers)
    ]

    def epoch(engine) -> None:
        engine.train_epoch(rows, minibatches.shuffled(rows, unit.batch_size, 0, 1))
        engine.weights(0)

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        return {"stack": milliseconds(lambda: list(pool.map(epoch, engines)), unit.steps) / unit.replicas / workers}


def keras(unit: Unit) -> dict[str, float]:
    """Plain Keras' fit, without DP-SGD."""
    import tensorflow as tf

    from models import networks

    x, y = data(unit)
    model = network(unit)
    x = x.reshape(-1, *model.input_shape[1:])
    model.compile(
        networks.optimizer(unit.optimizer, unit.learning_rate),
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return {"Keras": milliseconds(lambda: model.fit(x, y, unit.batch_size, verbose=0), unit.steps)}


def privacy(unit: Unit) -> dict[str, float]:
    """TensorFlow Privacy: the vectorised optimiser and the DP model, each with and without XLA.

    Infinite for those that fail.
    """
    import tensorflow as tf
    from tensorflow_privacy.privacy.keras_models.dp_keras_model import make_dp_model_class
    from tensorflow_privacy.privacy.optimizers import dp_optimizer_keras_vectorized as vectorized

    from models import networks

    x, y = data(unit)
    shape = network(unit).input_shape[1:]
    x = x.reshape(-1, *shape)
    batches = [
        (tf.constant(x[first : first + unit.batch_size]), tf.constant(y[first : first + unit.batch_size]))
        for first in range(0, len(y), unit.batch_size)
    ]
    kinds = {"adam": vectorized.VectorizedDPKerasAdamOptimizer, "sgd": vectorized.VectorizedDPKerasSGDOptimizer}

    def optimiser(xla: bool):
        model = network(unit)
        optimizer = kinds[unit.optimizer](unit.clip_norm, unit.noise_multiplier, learning_rate=unit.learning_rate)
        optimizer._create_all_weights(model.trainable_variables)
        losses = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")

        @tf.function(jit_compile=xla)
        def step(x, y):
            with tf.GradientTape(persistent=True) as tape:
                loss = losses(y, model(x, training=True))
            optimizer.minimize(loss, model.trainable_variables, tape=tape)

        return lambda: [step(*batch) for batch in batches]

    def model(xla: bool):
        plain = network(unit)
        private = make_dp_model_class(tf.keras.Model)(
            l2_norm_clip=unit.clip_norm,
            noise_multiplier=unit.noise_multiplier,
            use_xla=xla,
            inputs=plain.inputs,
            outputs=plain.outputs,
        )
        losses = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")
        private.compile(networks.optimizer(unit.optimizer, unit.learning_rate), losses)
        return lambda: private.fit(x, y, unit.batch_size, verbose=0)

    found = {}
    for name, make in (("optimizer", optimiser), ("DPModel", model)):
        for xla in (False, True):
            what = f"TF-Privacy {name}{', XLA' * xla}"
            try:
                found[what] = milliseconds(make(xla), unit.steps)
            # A peer's own fault: which variants run on which network is part of the comparison
            except Exception as error:
                print(f"{name}, xla {xla}: {error!r}"[:300], file=sys.stderr)
                found[what] = math.inf
    return found


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    report({"stack": stack, "keras": keras, "privacy": privacy}[sys.argv[2]](UNITS[sys.argv[1]]))
