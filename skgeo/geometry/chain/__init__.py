"""Chains of Jacobians: how depth carries lengths, volumes and directions."""

from skgeo.geometry.chain.jacobians import ChainJacobians
from skgeo.geometry.chain.moments import ElementwiseGram
from skgeo.geometry.chain.network import ChainNetwork
from skgeo.geometry.chain.plan import LayerPlan, plan_chain
from skgeo.geometry.chain.profile import (
    ChainProfile,
    LayerStretches,
    chain_profile,
    measure_chain,
)
from skgeo.geometry.chain.summaries import spectral_quantities
from skgeo.geometry.chain.topk import leading_singular_values

__all__ = [
    "ChainJacobians",
    "ChainNetwork",
    "ChainProfile",
    "ElementwiseGram",
    "LayerPlan",
    "LayerStretches",
    "chain_profile",
    "leading_singular_values",
    "measure_chain",
    "plan_chain",
    "spectral_quantities",
]
