"""The reference engine: the same Keras model, trained one replica after the other by TensorFlow Privacy's own
optimiser.

It has the methods of `models.stack.Stack` that train.py uses, but for the gradient record. Noise comes from TensorFlow
Privacy's own generator, so noisy trainings agree with the stack's in distribution only.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from command_line import refuse
from models import networks
from models.minibatches import Batches, Rows
from models.shaping import Shaping
from models.stack import EVALUATION_ROWS


class TensorFlowPrivacy:
    """One Keras model and one optimiser for each `Shaping`: VectorizedDPKeras* for a defended one, Keras' own for the
    others.
    """

    def __init__(
        self, model: tf.keras.Model, shapings: list[Shaping], optimizer: str, learning_rate: float, seed: int
    ) -> None:
        for shaping in shapings:
            check(shaping)
        self.shapings, self.initial, self.seed = list(shapings), model.get_weights(), seed
        self.models = [tf.keras.models.clone_model(model) for _ in shapings]
        self.optimizers = [_optimizer(shaping, optimizer, learning_rate) for shaping in shapings]
        self.loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")
        self.shape = model.input_shape[1:]
        self.steps = [self._compiled_step(*trio) for trio in zip(self.models, self.optimizers, shapings)]
        self.reset()

    def reset(self) -> None:
        """Go back to the initial weights and fresh optimisers."""
        tf.random.set_seed(self.seed)
        for model, optimizer in zip(self.models, self.optimizers):
            model.set_weights(self.initial)
            for state in optimizer.variables():
                state.assign(tf.zeros_like(state))

    def train_epoch(self, rows: Rows, epoch: Batches, record: bool = False) -> None:
        """Train every replica for one epoch over the batches that `models.minibatches.shuffled` made."""
        if record:
            raise ValueError("only the stack records gradients")
        x, weight = tf.reshape(rows.x, [-1, *self.shape]), rows.weight.numpy()
        for replica, step in enumerate(self.steps):
            for batch in np.split(epoch.order, epoch.starts[1:-1]):
                chosen = batch[weight[batch, replica] > 0]
                if len(chosen):
                    step(tf.gather(x, chosen), tf.gather(rows.y, chosen))

    def hits(self, x: tf.Tensor, y: tf.Tensor, replica: int | None = None) -> np.ndarray:
        """Which rows each replica classifies correctly: bool [replica, rows], of one replica [1, rows].

        x: float32 [rows, features]; y: int32 [rows].
        """
        images = tf.reshape(x, [-1, *self.shape])
        models = self.models if replica is None else [self.models[replica]]
        return np.stack(
            [model.predict(images, EVALUATION_ROWS, verbose=0).argmax(1) == np.asarray(y) for model in models]
        )

    def right(self, rows: Rows) -> np.ndarray:
        """How many of the clean rows and of the poisons that each replica sees it classifies correctly, float64 [2,
        replica].
        """
        seen = self.hits(rows.x, rows.y) * rows.weight.numpy().T.astype(np.float64)
        return np.stack([seen[:, part].sum(1) for part in (~rows.is_poison, rows.is_poison)])

    def finite(self) -> np.ndarray:
        """Which replicas have numbers for weights, bool [replica]."""
        return np.array([all(np.isfinite(values).all() for values in model.get_weights()) for model in self.models])

    def weights(self, replica: int) -> list[np.ndarray]:
        """The weights of one replica."""
        return self.models[replica].get_weights()

    def _compiled_step(self, model: tf.keras.Model, optimizer: tf.keras.optimizers.legacy.Optimizer, shaping: Shaping):
        optimizer._create_all_weights(model.trainable_variables)  # they must exist before the step is traced

        @tf.function(reduce_retracing=True)
        def step(x, y):
            with tf.GradientTape(persistent=shaping.defended) as tape:
                losses = self.loss(y, model(x, training=True))
                loss = (
                    losses if shaping.defended else tf.reduce_mean(losses)
                )  # TensorFlow Privacy takes the examples' losses apart
            optimizer.minimize(loss, model.trainable_variables, tape=tape)

        return step


def check(shaping: Shaping) -> None:
    """Refuse what TensorFlow Privacy does not do: another kind than clipping, and noise without it."""
    if shaping.kind != "clip" or (shaping.noise_std and shaping.clip_norm == math.inf):
        refuse(
            f"--shaping {shaping.text}: --engine tfprivacy clips and adds noise to clipped sums only; use --engine"
            " stack"
        )


def _optimizer(shaping: Shaping, name: str, learning_rate: float) -> tf.keras.optimizers.legacy.Optimizer:
    if not shaping.defended:
        return networks.optimizer(name, learning_rate)
    from tensorflow_privacy.privacy.optimizers import dp_optimizer_keras_vectorized as vectorized

    noise_multiplier = shaping.noise_std / shaping.clip_norm
    if name == "adam":
        return vectorized.VectorizedDPKerasAdamOptimizer(
            shaping.clip_norm, noise_multiplier, learning_rate=learning_rate, epsilon=1e-8
        )
    return vectorized.VectorizedDPKerasSGDOptimizer(shaping.clip_norm, noise_multiplier, learning_rate=learning_rate)
