"""The values that everything else passes around: frozen, without I/O and without a clock.

Start with :mod:`rollbook.model.thread`.
"""
