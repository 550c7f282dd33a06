"""Leading eigenvalues of the metric at a layer, for networks with many outputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from skgeo._arguments import check_integer
from skgeo.exceptions import SkgeoError
from skgeo.likelihood import Likelihood
from skgeo.linalg._golub_kahan import golub_kahan
from skgeo.linalg._threads import single_blas_thread
from skgeo.network._bound import bind
from skgeo.network._running import batch_ranges
from skgeo.quotient._rows import LayerRows


def leading_eigenvalues(
    model: Any,
    X: Any,
    layer: str,
    y: Any = None,
    *,
    n_values: int = 10,
    n_steps: int | None = None,
    likelihood: str | Likelihood = "auto",
    batch_size: int = 16,
    random_state: int = 0,
    device: str | torch.device | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Largest eigenvalues of the Fisher metric at one layer, without forming its rows.

    Parameters
    ----------
    model : Module, WrappedModel, Checkpoint, scikit-learn or skorch model
        Not modified.
    X : array, Tensor, dict, Dataset or DataLoader
        N samples.
    layer : str
        Name of the layer.
    y : array-like, optional
        Targets, as in :func:`~skgeo.quotient.layer_spectra`.
    n_values : int, default=10
        Number of eigenvalues per sample.
    n_steps : int, optional
        Steps of Golub-Kahan bidiagonalisation; by default ``4 * n_values``. At most the smaller
        of the number of rows and the dimension of the layer.
    likelihood : str or Likelihood, default="auto"
        Distribution that the outputs parametrise, as in :func:`~skgeo.quotient.layer_spectra`.
    batch_size : int, default=16
        Samples per forward pass.
    random_state : int, default=0
        Seed of the starting vectors.
    device : str or torch.device, optional
        Where to compute; by default where the module is.

    Returns
    -------
    eigenvalues : Tensor of shape (N, n_values)
        Descending, float64; 0 beyond the rank. They exceed the true ones by at most rounding.
    errors : Tensor of shape (N, n_values)
        Bound on the distance of each to some true eigenvalue.

    Raises
    ------
    SkgeoError
        As for :func:`~skgeo.quotient.layer_spectra`, and if more values are asked for than the
        metric has.

    See Also
    --------
    skgeo.quotient.layer_spectra : All eigenvalues at all layers, from rank(F) backward passes;
        cheaper for up to a few hundred outputs.

    Notes
    -----
    It takes ``2 n_steps`` backward passes, and ``n_steps`` vectors of each side per sample. The
    root of a categorical metric takes memory quadratic in the number of classes.

    Examples
    --------
    >>> from torch import nn
    >>> from skgeo.quotient import layer_spectra, leading_eigenvalues
    >>> _ = torch.manual_seed(0)
    >>> net = nn.Sequential(nn.Linear(4, 30), nn.Tanh(), nn.Linear(30, 200)).double()
    >>> X = torch.randn(3, 4)
    >>> found, errors = leading_eigenvalues(net, X, "1", n_values=2, likelihood="gaussian")
    >>> expected = layer_spectra(net, X, layers=["1"], likelihood="gaussian")[0].eigenvalues[:, :2]
    >>> bool(((found - expected).abs() <= errors + 1e-12).all())
    True
    """
    with single_blas_thread():
        network = bind(
            model,
            X,
            y,
            likelihood=likelihood,
            parameters=None,
            batch_size=batch_size,
            device=device,
        )
        rows = LayerRows(network, [layer])
        (name,) = rows.names
        side = min(rows.n_rows, rows.layers[name].dim)
        check_integer("n_values", n_values)
        if n_steps is not None:
            check_integer("n_steps", n_steps, also="None")
        check_integer("random_state", random_state, least=0)
        if not 1 <= n_values <= side:
            raise SkgeoError(
                f"Got n_values={n_values}; the metric at layer {name!r} has {side} eigenvalues "
                f"that may differ from zero; expected 1 to {side}."
            )
        steps = min(side, 4 * n_values if n_steps is None else n_steps)
        generator = torch.Generator().manual_seed(random_state)
        values, errors = [], []
        for samples in batch_ranges(network.n_samples, batch_size):
            found, residuals = _batch(rows, samples, n_values, steps, generator)
            # |s - t| <= r for singular values makes |s^2 - t^2| <= r (2 s + r).
            values.append(found.square().cpu())
            errors.append((residuals * (2 * found + residuals)).cpu())
    return torch.cat(values), torch.cat(errors)


def _batch(
    rows: LayerRows, samples: range, n_values: int, steps: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    network, likelihood = rows.network, rows.network.likelihood
    (layer,) = rows.layers.layers
    seen = rows.layers.record(network.inputs(samples), start=samples.start)
    network.notice(seen.output)
    operator = seen.operator(rows.layers.output, layer)
    z = network.sized(seen.output.detach())

    def push(v: Tensor) -> Tensor:
        moved = network.sized(operator.push(v)).double()
        return likelihood.pull_rows(z, moved.unsqueeze(-1)).flatten(1)

    def pull(u: Tensor) -> Tensor:
        # R u is the transpose of w -> R^T w, which the likelihood gives.
        with torch.enable_grad():
            w = torch.zeros_like(z, dtype=torch.float64, requires_grad=True)
            weighted = likelihood.pull_rows(z, w.unsqueeze(-1)).flatten(1)
            (root,) = torch.autograd.grad(weighted, w, u)
        return operator.pull(root.flatten(1)).double()

    shape = (len(samples), rows.n_rows)
    start = torch.randn(shape, generator=generator, dtype=torch.float64)
    values, _, residuals = golub_kahan(push, pull, start.to(network.device), n_values, steps)
    return values, residuals
