"""Replicas of a distribution strategy: one chip, one global batch."""

from __future__ import annotations

import tensorflow as tf


def first_sample(x: tf.Tensor) -> tf.Tensor:
    """Return the index of the first sample of x in the global batch, as an int64 scalar."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return tf.constant(0, "int64")
    replica = tf.cast(context.replica_id_in_sync_group, "int64")
    return replica * tf.shape(x, "int64")[0]
