"""Flat directions in closed form, from the symmetries of a network.

Each symmetry is a rule that proposes null vectors of the Fisher metric. Each vector is checked
against the Jacobian on the data before it counts.
"""
