"""Keras layers that run and train on simulated resistive crossbar chips, on the TensorFlow backend."""
