"""Experiments around the physics: data sets, run folders, metrics, the training program.

Nothing here knows a deep-learning framework, and the physics never imports it. Needs the extra
``lab`` (``pip install 'xbar-core[lab]'``).
"""
