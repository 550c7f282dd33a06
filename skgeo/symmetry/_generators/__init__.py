"""Flat directions in closed form: what each symmetry says of the Fisher null space.

Every symmetry is one small rule that proposes null vectors; each vector is checked against the
Jacobian on the data before it counts.
"""
