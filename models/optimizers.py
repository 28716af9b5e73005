"""The optimisers' updates of a stack's parameters, by TensorFlow's own kernels: those that Keras' legacy optimisers
call.

Keras gives each parameter's state a fixed shape; a stack's may lose replicas in the middle of a training.
"""

from __future__ import annotations

import tensorflow as tf

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8  # Adam's (Kingma and Ba 2015), with TensorFlow 1's epsilon


class Optimizer:
    """adam or sgd for a list of variables.

    `steps`, int64, is how many updates were made; moments: Adam's two for each parameter, sgd has none.
    """

    def __init__(self, name: str, learning_rate: float, parameters: list[tf.Variable]) -> None:
        self.learning_rate, self.parameters = learning_rate, parameters
        self.steps = tf.Variable(0, dtype=tf.int64)
        self.moments = (
            [tf.Variable(tf.zeros_like(values), shape=values.shape) for _ in range(2) for values in parameters]
            if name == "adam"
            else []
        )

    def reset(self) -> None:
        """Forget all steps; to be called when the parameters have their initial values, and shapes, again."""
        self.steps.assign(0)
        for moment, parameter in zip(self.moments, self.parameters * 2):
            moment.assign(tf.zeros_like(parameter))

    def apply(self, gradients: list[tf.Tensor]) -> None:
        """Update every parameter by its gradient."""
        if not self.moments:
            for parameter, gradient in zip(self.parameters, gradients):
                tf.raw_ops.ResourceApplyGradientDescent(var=parameter.handle, alpha=self.learning_rate, delta=gradient)
        else:
            powers = [tf.pow(beta, tf.cast(self.steps + 1, tf.float32)) for beta in (BETA_1, BETA_2)]
            means, squares = self.moments[: len(self.parameters)], self.moments[len(self.parameters) :]
            for parameter, mean, square, gradient in zip(self.parameters, means, squares, gradients):
                tf.raw_ops.ResourceApplyAdam(
                    var=parameter.handle, m=mean.handle, v=square.handle, beta1_power=powers[0], beta2_power=powers[1],
                    lr=self.learning_rate,
                    beta1=BETA_1, beta2=BETA_2, epsilon=EPSILON, grad=gradient,
                )  # fmt: skip
        self.steps.assign_add(1)
