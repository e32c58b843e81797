"""Replicas of a distribution strategy: one chip, one global batch."""

from __future__ import annotations

import tensorflow as tf


def first_sample(x: tf.Tensor) -> tf.Tensor:
    """Return the index of the first sample of x in the global batch, as an int64 scalar.

    Replicas tell each other how many samples they have: of a batch that does not divide the last ones have
    fewer, or none. In a loop of a graph, or a `tf.function` inside of a replica's work, they cannot; there a
    replica takes those before it to have as many as it has itself.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return tf.constant(0, "int64")
    samples, replica = tf.shape(x, "int64")[0], context.replica_id_in_sync_group
    try:
        shares = context.all_gather(samples[None], axis=0)
    except RuntimeError:
        return tf.cast(replica, "int64") * samples
    return tf.reduce_sum(tf.where(tf.range(tf.size(shares)) < replica, shares, 0))
