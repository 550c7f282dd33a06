"""Chains of Jacobians: the effect of depth on lengths, volumes and directions."""

from skgeo.chain._cauchy_green import CauchyGreen, cauchy_green
from skgeo.chain._curvature import CurveCurvature, SectionalCurvature, curvature
from skgeo.chain._kinks import KinkDensity, kink_density
from skgeo.chain._mean_field import MeanField, mean_field
from skgeo.chain._mean_field_theory import MeanFieldTheory, mean_field_theory
from skgeo.chain._penalties import curvature_penalty, isometry_penalty, jacobian_penalty
from skgeo.chain._profile import (
    ChainProfile,
    LayerStretches,
    chain_profile,
)
from skgeo.chain._stability import StabilityEstimate, stability
from skgeo.chain.display import ProfileDisplay
from skgeo.chain.estimator import JacobianChainProfiler

__all__ = [
    "CauchyGreen",
    "ChainProfile",
    "CurveCurvature",
    "JacobianChainProfiler",
    "KinkDensity",
    "LayerStretches",
    "MeanField",
    "MeanFieldTheory",
    "ProfileDisplay",
    "SectionalCurvature",
    "StabilityEstimate",
    "cauchy_green",
    "chain_profile",
    "curvature",
    "curvature_penalty",
    "isometry_penalty",
    "jacobian_penalty",
    "kink_density",
    "mean_field",
    "mean_field_theory",
    "stability",
]
