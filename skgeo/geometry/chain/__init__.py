"""Chains of Jacobians: how depth carries lengths, volumes and directions."""

from skgeo.geometry.chain.cauchy_green import CauchyGreen, cauchy_green
from skgeo.geometry.chain.curvature import CurveCurvature, SectionalCurvature, curvature
from skgeo.geometry.chain.jacobians import ChainJacobians
from skgeo.geometry.chain.kinks import KinkDensity, kink_density
from skgeo.geometry.chain.mean_field import MeanField, mean_field
from skgeo.geometry.chain.mean_field_theory import MeanFieldTheory, mean_field_theory
from skgeo.geometry.chain.moments import ElementwiseGram
from skgeo.geometry.chain.penalties import curvature_penalty, isometry_penalty, jacobian_penalty
from skgeo.geometry.chain.plan import LayerPlan, plan_chain
from skgeo.geometry.chain.profile import (
    ChainProfile,
    LayerStretches,
    chain_profile,
    measure_chain,
)
from skgeo.geometry.chain.stability import StabilityEstimate, stability
from skgeo.geometry.chain.summaries import spectral_quantities
from skgeo.geometry.chain.topk import leading_singular_values

__all__ = [
    "CauchyGreen",
    "ChainJacobians",
    "ChainProfile",
    "CurveCurvature",
    "ElementwiseGram",
    "KinkDensity",
    "LayerPlan",
    "LayerStretches",
    "MeanField",
    "MeanFieldTheory",
    "SectionalCurvature",
    "StabilityEstimate",
    "cauchy_green",
    "chain_profile",
    "curvature",
    "curvature_penalty",
    "isometry_penalty",
    "jacobian_penalty",
    "kink_density",
    "leading_singular_values",
    "mean_field",
    "mean_field_theory",
    "measure_chain",
    "plan_chain",
    "spectral_quantities",
    "stability",
]
