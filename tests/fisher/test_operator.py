import numpy as np
import pytest
import torch
from scipy.sparse.linalg import eigsh
from torch import nn

from helpers.cases import BY_NAME, CASES
from helpers.networks import mlp, normal
from helpers.oracles import dense_fisher, dense_jacobian
from skgeo import SkgeoError, WrappedModel
from skgeo.fisher import FisherOperator, fisher_diagonal, fisher_trace
from skgeo.likelihood import Categorical
from skgeo.linalg._estimate import mean_of
from skgeo.linalg._sketches import participation_ratio, squared_norm

LIKELIHOODS = ["categorical", "bernoulli", "gaussian", "poisson"]


def as_tensor(value):
    return (
        value.double()
        if isinstance(value, torch.Tensor)
        else torch.tensor(np.array(value)).double()
    )


def close(found, expected, rtol=1e-10):
    expected = as_tensor(expected)
    scale = float(expected.abs().max())
    torch.testing.assert_close(as_tensor(found), expected, rtol=rtol, atol=rtol * scale)


def operator_of(case, **options):
    module = case.module()
    model = module if case.forward is None else WrappedModel(module, case.forward)
    return FisherOperator(model, case.inputs(), **options)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_products_are_those_of_the_dense_matrix(case, likelihood):
    # Five samples in batches of two: the last one is shorter.
    G = operator_of(case, likelihood=likelihood, batch_size=2)
    dense = torch.as_tensor(dense_fisher(case.module(), case.inputs(), likelihood, case.forward))
    v = normal(G.shape[0], 2)
    close(G @ v, dense @ v)
    close(G.quadratic_form(v[:, 0]), v[:, 0] @ dense @ v[:, 0])
    close(G.trace(None).value, dense.trace(), 1e-8)


def test_means_with_scales():
    module, X = mlp(4, 6, 4), normal(5, 4)
    G = FisherOperator(module, X, likelihood="gaussian_scale")
    close(G.to_dense(), dense_fisher(module, X, "gaussian_scale"))


class Tokens(nn.Module):
    """Logits of four classes at each of three positions, with a weight used twice."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(4, 3)

    def forward(self, x):
        return torch.tanh(self.embed(x)).cumsum(1) @ self.embed.weight.T


def test_sequences_tied_weights_and_positions_left_out():
    torch.manual_seed(0)
    module = Tokens().double()
    X = torch.randint(0, 4, (5, 3))
    y = torch.randint(0, 4, (5, 3))
    y[0, 1:] = y[3, 2] = -100
    z, rows = dense_jacobian(module, X)
    z, rows = torch.as_tensor(z).reshape(5, 3, 4), torch.as_tensor(rows).reshape(5, 3, 4, -1)
    metric = Categorical().fisher(z) * (y >= 0)[..., None, None]
    expected = torch.einsum("ntkp,ntkl,ntlq->pq", rows, metric, rows) / 5
    for batch_size in (1, 2, None):
        G = FisherOperator(module, X, y, batch_size=batch_size)
        close(G.to_dense(), expected)
    score = (nn.functional.one_hot(y.clamp_min(0), 4) - z.softmax(-1)) * (y >= 0).unsqueeze(-1)
    g = torch.einsum("ntk,ntkp->np", score, rows)
    E = FisherOperator(module, X, y, kind="empirical")
    close(E.to_dense(), g.T @ g / 5)
    close(E.trace(None).value, g.square().sum() / 5)
    close(E.trace(4).value, g.square().sum() / 5)


def test_drawn_targets_give_one_matrix_without_bias():
    module, X = mlp(3, 4, 3), normal(6, 3)
    options = {"likelihood": "categorical", "kind": "mc"}
    one = FisherOperator(module, X, **options)
    first = one.to_dense()
    close(one.to_dense(), first)  # the same draws in every product
    close(FisherOperator(module, X, batch_size=1, **options).to_dense(), first)
    close(one.trace(None).value, first.trace())
    close(one.trace(2).value, first.trace())  # a single draw has one sign, which is squared
    many = FisherOperator(module, X, n_draws=2000, random_state=3, **options).to_dense()
    exact = torch.as_tensor(dense_fisher(module, X, "categorical"))
    assert (many - exact).norm() < 0.05 * exact.norm()
    assert (first - exact).norm() > 0.2 * exact.norm()


def within(estimates, exact):
    """Share of estimates within two of their standard errors."""
    values = np.array([each.value for each in estimates])
    errors = np.array([each.standard_error for each in estimates])
    return np.mean(np.abs(values - exact) <= 2 * errors)


@pytest.mark.parametrize("apart", [True, False])
def test_errors_are_standard_errors(apart, monkeypatch):
    module, X = mlp(4, 6, 3), normal(12, 4)
    dense = torch.as_tensor(dense_fisher(module, X, "categorical"))
    monkeypatch.setattr("skgeo.fisher._probes.Probes.apart", apart)
    G = FisherOperator(module, X, likelihood="categorical")
    # The probes of 400 runs of 32 each.
    squares = G._probes.squares(400 * 32).reshape(400, 32, -1)
    traces = [mean_of(each.sum(1)) for each in squares]
    assert 0.90 <= within(traces, float(dense.trace())) <= 0.985
    first = [mean_of(each[:, 0]) for each in squares]
    assert 0.90 <= within(first, float(dense.diagonal()[:24].sum())) <= 0.985
    # The probes that keep samples apart have the smaller error.
    norm = float(dense.square().sum())
    spread = np.std([each.value for each in traces])
    together = (2 * norm / 32) ** 0.5
    assert spread < 0.7 * together if apart else 0.7 * together < spread < 1.1 * together


def test_errors_of_sums_of_squares():
    module, X = mlp(4, 6, 3), normal(12, 4)
    dense = torch.as_tensor(dense_fisher(module, X, "categorical"))
    vectors = FisherOperator(module, X, likelihood="categorical").probe(400 * 32)
    products = [g @ g.T for g in vectors.reshape(400, 32, -1)]
    norm = float(dense.square().sum())
    assert 0.90 <= within([squared_norm(each) for each in products], norm) <= 0.985
    ratios = [participation_ratio(each) for each in products]
    assert 0.90 <= within(ratios, float(dense.trace()) ** 2 / norm) <= 0.985


@pytest.mark.parametrize("name", ["relu", "conv2d", "embedding_tied", "lstm", "transformer"])
def test_estimates_of_blocks_and_of_the_diagonal(name):
    case = BY_NAME[name]
    G = operator_of(case, likelihood="categorical", batch_size=2)
    dense = torch.as_tensor(dense_fisher(case.module(), case.inputs(), "categorical", case.forward))
    table = G.layer_traces(400)
    sizes = list(table["n_parameters"])
    exact = [block.sum() for block in dense.diagonal().split(sizes)]
    z = (table["trace"] - np.array(exact)) / table["standard_error"].clip(1e-9)
    assert (z.abs() < 5).all()
    assert table["trace"].sum() == pytest.approx(G.trace(400).value)
    found = G.diagonal(400)
    off = (found.value - dense.diagonal()).abs()
    assert (off <= 5 * found.standard_error + 1e-9).all()
    assert found.value.sum() == pytest.approx(G.trace(400).value)


def test_estimates_do_not_depend_on_batches():
    module, X = mlp(4, 6, 3), normal(11, 4)
    for kind in ("exact", "mc"):
        whole = FisherOperator(module, X, likelihood="categorical", kind=kind)
        for size in (1, 3, 4):
            parts = FisherOperator(module, X, likelihood="categorical", kind=kind, batch_size=size)
            close(parts.probe(3), whole.probe(3))
            close(parts.trace(4).value, whole.trace(4).value)
            close(parts.layer_traces(4)["trace"].to_numpy(), whole.layer_traces(4)["trace"])
    close(whole.probe(2), whole.probe(5)[:2])


def test_exact_values_where_nothing_is_random():
    # Least squares with one output: every probe has the squares of the exact matrix.
    module, X = nn.Linear(3, 1).double(), normal(7, 3)
    G = FisherOperator(module, X, likelihood="gaussian")
    assert G.trace(2).standard_error < 1e-12
    assert G.trace(2).value == pytest.approx(fisher_trace(module, X, likelihood="gaussian"))
    close(G.diagonal(2).value, fisher_diagonal(module, X, likelihood="gaussian"))
    assert G.trace(None).standard_error == 0.0


def test_other_forms_of_the_operator():
    module, X = mlp(4, 6, 3), normal(12, 4)
    G = FisherOperator(module, X, likelihood="categorical")
    dense = dense_fisher(module, X, "categorical")
    values = eigsh(G.to_scipy(), k=3, return_eigenvectors=False)
    close(np.sort(values), np.linalg.eigvalsh(dense)[-3:])
    before = G.n_products
    v = np.ones((G.shape[0], 2))
    assert isinstance(G @ v, np.ndarray)
    assert G.n_products == before + 2
    assert G.parameter_names == ("0.weight", "0.bias", "2.weight", "2.bias")
    half = FisherOperator(module.to(torch.bfloat16), X.float(), likelihood="categorical")
    assert half.dtype == torch.float32


def test_selected_parameters():
    module, X = mlp(4, 6, 3), normal(12, 4)
    G = FisherOperator(module, X, likelihood="categorical", parameters=["2.bias", "0.weight"])
    dense = dense_fisher(module, X, "categorical")
    where = [*range(24), *range(48, 51)]
    close(G.to_dense(), dense[np.ix_(where, where)])
    assert list(G.layer_traces(2)["layer"]) == ["0", "2"]


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda G: G @ torch.ones(3), r"Got shape \(3,\); expected \(51,\) or \(51, k\)"),
        (lambda G: G @ [1.0], "Got list; expected a tensor"),
        (lambda G: G @ torch.full((51,), torch.nan), "NaN or infinity"),
        (lambda G: G.trace(1), "n_probes=1; a standard error needs at least 2"),
        (lambda G: G.layer_traces(1), "n_probes=1"),
        (lambda G: G.squared_norm(2), "at least 3"),
        (lambda G: G.participation_ratio(15), "at least 16"),
        (lambda G: G.probe(0), "n=0"),
    ],
)
def test_what_it_cannot_give(ask, said):
    G = FisherOperator(mlp(4, 6, 3), normal(12, 4), likelihood="categorical")
    with pytest.raises(SkgeoError, match=said):
        ask(G)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "sampled"}, "kind='sampled'"),
        ({"kind": "mc", "n_draws": 0}, "n_draws=0"),
        ({"random_state": -1}, "random_state=-1"),
        ({"kind": "empirical"}, "pass y"),
        ({"kind": "empirical", "y": np.array(["a", "b", "c"] * 4)}, "needs numbers in y"),
        ({"kind": "empirical", "y": np.zeros((12, 2)), "likelihood": "gaussian"}, "y has shape"),
    ],
)
def test_what_it_refuses(options, said):
    y = options.pop("y", None)
    options = {"likelihood": "categorical", **options}
    with pytest.raises(SkgeoError, match=said):
        FisherOperator(mlp(4, 6, 3), normal(12, 4), y, **options)


def test_memory_is_refused_before_it_is_taken():
    module, X = mlp(4, 60, 3), normal(12, 4)
    G = FisherOperator(module, X, likelihood="categorical", memory_budget=200_000)
    assert G.trace(4).value > 0
    with pytest.raises(SkgeoError, match=r"100 probes of 483 parameters take .* use fewer probes"):
        G.probe(100)
    with pytest.raises(SkgeoError, match="use products with @"):
        G.to_dense()
    with pytest.raises(SkgeoError, match="The graph of one sample"):
        FisherOperator(module, X, likelihood="categorical", memory_budget=6_000) @ torch.ones(483)


def test_sums_of_a_sketch():
    g = normal(40, 3, seed=2) * torch.tensor([3.0, 1.0, 0.0])
    products = g @ g.T
    pairs = [(i, j) for i in range(40) for j in range(40) if i != j]
    mean = np.mean([float(products[i, j]) ** 2 for i, j in pairs])
    assert squared_norm(products).value == pytest.approx(mean)
    ratio = np.mean([float(products[i, i] * products[j, j]) for i, j in pairs]) / mean
    found = participation_ratio(products)
    assert found.value == pytest.approx(ratio, rel=0.2)
    assert found.value != ratio
    assert np.isnan(participation_ratio(torch.zeros(16, 16)).value)


def test_in_any_gradient_mode():
    module, X = mlp(4, 6, 3), normal(12, 4)
    G = FisherOperator(module, X, likelihood="categorical")
    v = torch.ones(G.shape[0], dtype=G.dtype)
    expected, trace = G @ v, G.trace(4)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            other = FisherOperator(module, X, likelihood="categorical")
            close((other @ v).clone(), expected)
            assert other.trace(4) == trace
