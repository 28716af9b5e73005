"""Milliseconds a training step in JAX, jitted, per-example gradients by vmap, steps by scan: called by peers.py."""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp
from units import UNITS, data, milliseconds, report


def main() -> None:
    unit = UNITS[sys.argv[1]]
    x, y = data(unit)
    batches = (jnp.array(x.reshape(unit.steps, unit.batch_size, -1)), jnp.array(y.reshape(unit.steps, -1)))
    keys = jax.random.split(jax.random.key(0), sum(1 for _ in unit.filters) + len(unit.dense))
    parameters = []
    for key, (inside, outside) in zip(keys, zip((1, *unit.filters), unit.filters)):
        parameters.append((0.1 * jax.random.normal(key, (3, 3, inside, outside)), jnp.zeros(outside)))
    for key, (inside, outside) in zip(keys[len(unit.filters) :], unit.dense):
        parameters.append((0.05 * jax.random.normal(key, (inside, outside)), jnp.zeros(outside)))

    def logits(parameters, x):
        values = x
        if unit.filters:
            values = x.reshape(-1, 28, 28, 1)
            for kernel, bias in parameters[: len(unit.filters)]:
                values = jax.lax.conv_general_dilated(
                    values, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
                )
                values = jax.nn.relu(values + bias)
            values = jax.lax.reduce_window(values, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
            values = values.reshape(len(x), -1)
        dense = parameters[len(unit.filters) :]
        for number, (kernel, bias) in enumerate(dense):
            values = values @ kernel + bias
            values = jax.nn.relu(values) if number < len(dense) - 1 else values
        return values

    def loss(parameters, x, y):
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits(parameters, x)), y[:, None], 1))

    def gradient(parameters, x, y, key):
        if unit.clip_norm is None:
            return jax.grad(loss)(parameters, x, y)
        of_one = jax.grad(lambda parameters, x, y: loss(parameters, x[None], y[None]))
        each = jax.vmap(of_one, (None, 0, 0))(parameters, x, y)
        squares = sum(jnp.sum(jnp.square(leaf).reshape(len(y), -1), 1) for leaf in jax.tree.leaves(each))
        factors = jnp.minimum(1.0, unit.clip_norm / jnp.sqrt(squares))
        summed = jax.tree.map(lambda leaf: jnp.tensordot(factors, leaf, 1), each)
        if unit.noise_multiplier:
            leaves, tree = jax.tree.flatten(summed)
            keys, noise_std = jax.random.split(key, len(leaves)), unit.clip_norm * unit.noise_multiplier
            noisy = [leaf + noise_std * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves)]
            summed = jax.tree.unflatten(tree, noisy)
        return jax.tree.map(lambda leaf: leaf / unit.batch_size, summed)

    def step(state, batch):
        parameters, first, second, count, key = state
        key, drawn = jax.random.split(key)
        gradients = gradient(parameters, *batch, drawn)
        if unit.optimizer == "sgd":
            parameters = jax.tree.map(lambda p, g: p - unit.learning_rate * g, parameters, gradients)
            return (parameters, first, second, count, key), 0
        count = count + 1
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradients)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradients)
        rate = unit.learning_rate * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        parameters = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) + 1e-8), parameters, first, second)
        return (parameters, first, second, count, key), 0

    epoch = jax.jit(lambda state: jax.lax.scan(step, state, batches)[0])
    zeros = jax.tree.map(jnp.zeros_like, parameters)
    state = (parameters, zeros, zeros, jnp.zeros(()), jax.random.key(1))
    report({"JAX": milliseconds(lambda: jax.block_until_ready(epoch(state)), unit.steps)})


if __name__ == "__main__":
    main()
