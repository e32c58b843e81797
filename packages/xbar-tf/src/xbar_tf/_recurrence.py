"""The time loop of recurrent layers: one step of each kind of cell, and the loop around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import tensorflow as tf

Activation = Callable[[tf.Tensor], tf.Tensor]
Read = Callable[[tf.Tensor, Any], tf.Tensor]
"""What the recurrent weight makes of a hidden state (batch, units) in a call: (batch, gates x units)."""


class Cell(Protocol):
    """One step: gate inputs of x (batch, gates x units), states (batch, units) -> new states, h first."""

    @property
    def reads(self) -> int:
        """Number of reads of the recurrent weight; a step numbers its own from 0."""

    def __call__(self, from_x: tf.Tensor, states: list[tf.Tensor], read: Read) -> list[tf.Tensor]: ...


@dataclass(frozen=True)
class SimpleCell:
    """``h = act(from_x + h U)``."""

    activation: Activation
    reads: int = 1

    def __call__(self, from_x: tf.Tensor, states: list[tf.Tensor], read: Read) -> list[tf.Tensor]:
        return [self.activation(from_x + read(states[0], 0))]


@dataclass(frozen=True)
class LSTMCell:
    """``c = f c + i g, h = o act(c)``, gates in the order i, f, g, o."""

    activation: Activation
    gate: Activation
    reads: int = 1

    def __call__(self, from_x: tf.Tensor, states: list[tf.Tensor], read: Read) -> list[tf.Tensor]:
        i, f, g, o = tf.split(from_x + read(states[0], 0), 4, axis=-1)
        c = self.gate(f) * states[1] + self.gate(i) * self.activation(g)
        return [self.gate(o) * self.activation(c), c]


@dataclass(frozen=True)
class GRUCell:
    """``n = act(x_n + r h_n), h = (1 - z) n + z h``, gates in torch's order r, z, n.

    Without `reset_after` the reset gate acts before the product, ``h_n = (r h) U``: a second read.

    Parameters
    ----------
    activation, gate : callable
        Of the new state, of the gates.
    reset_after : bool
        Where the reset gate acts.
    bias : Tensor (3 units,) or None
        What is added to ``h U``.
    """

    activation: Activation
    gate: Activation
    reset_after: bool
    bias: tf.Tensor | None

    @property
    def reads(self) -> int:
        """Number of reads in a step."""
        return 1 if self.reset_after else 2

    def __call__(self, from_x: tf.Tensor, states: list[tf.Tensor], read: Read) -> list[tf.Tensor]:
        h = states[0]
        from_h = read(h, 0) if self.bias is None else read(h, 0) + self.bias
        (x_r, x_z, x_n), (h_r, h_z, h_n) = tf.split(from_x, 3, axis=-1), tf.split(from_h, 3, axis=-1)
        r, z = self.gate(x_r + h_r), self.gate(x_z + h_z)
        if self.reset_after:
            n = self.activation(x_n + r * h_n)
        else:
            n = self.activation(x_n + tf.split(read(r * h, 1), 3, axis=-1)[2])
        return [n + z * (h - n)]


@dataclass(frozen=True)
class Loop:
    """How a sequence is gone through.

    Parameters
    ----------
    reverse : bool
        From the last step to the first; outputs come in the order of the steps taken.
    every : bool
        Return the outputs of all steps, else only the last.
    zero_masked : bool
        Outputs of masked steps are 0, else those of the step before.
    unroll : bool
        Lay the steps out one by one in a graph.
    """

    reverse: bool
    every: bool
    zero_masked: bool
    unroll: bool

    def run(
        self, cell: Cell, read: Read, from_x: tf.Tensor, mask: tf.Tensor | None, states: list[tf.Tensor]
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Return outputs (batch, length, units), or the last (batch, units), and final states.

        Parameters
        ----------
        cell : Cell
            One step.
        read : callable
            The recurrent weight.
        from_x : Tensor (batch, length, gates x units)
            Gate inputs of all steps.
        mask : bool Tensor (batch, length) or None
            False where a step is skipped: states stay as they are.
        states : list of Tensor (batch, units)
            Initial states, h first.
        """
        at: Callable[[Any], tf.Tensor]

        def step(n: Any, output: tf.Tensor, states: list[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
            def numbered(h: tf.Tensor, own: Any) -> tf.Tensor:
                return read(h, n * cell.reads + own)

            t = length - 1 - n if self.reverse else n
            if mask is None:
                states = cell(at(t), states, numbered)
                return states[0], states
            here = mask[:, t][:, None]
            # What is skipped is sent as 0, so that it moves no range.
            new = cell(at(t), [tf.where(here, states[0], 0), *states[1:]], numbered)
            output = tf.where(here, new[0], 0 if self.zero_masked else output)
            return output, [tf.where(here, now, held) for now, held in zip(new, states, strict=True)]

        output = tf.zeros_like(states[0])
        # Cut once: the gradient of a slice would be as large as all steps together, for every step.
        if not (tf.executing_eagerly() or self.unroll):
            length = tf.shape(from_x)[1]
            each = tf.TensorArray(from_x.dtype, length, element_shape=(from_x.shape[0], from_x.shape[2]))
            at = each.unstack(tf.transpose(from_x, (1, 0, 2))).read
            return self._symbolic(step, length, output, states)
        length, outputs = from_x.shape[1], []
        at = tf.unstack(from_x, axis=1).__getitem__
        for n in range(length):
            output, states = step(n, output, states)
            outputs.append(output)
        return tf.stack(outputs, axis=1) if self.every else output, states

    def _symbolic(
        self, step: Any, length: tf.Tensor, output: tf.Tensor, states: list[tf.Tensor]
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        def body(n: tf.Tensor, output: tf.Tensor, states: list[tf.Tensor], kept: Any) -> Any:
            output, states = step(n, output, states)
            return n + 1, output, states, kept.write(n, output) if self.every else kept

        # The first step stands before the loop: nothing goes backward from it to states that are constant.
        output, states = step(0, output, states)
        kept = tf.TensorArray(output.dtype, length, element_shape=output.shape)
        kept = kept.write(0, output) if self.every else kept
        # One after the other: every step is a call of its own.
        _, output, states, kept = tf.while_loop(
            lambda n, *_: n < length,
            body,
            (tf.constant(1), output, states, kept),
            parallel_iterations=1,
        )
        return tf.transpose(kept.stack(), (1, 0, 2)) if self.every else output, states
