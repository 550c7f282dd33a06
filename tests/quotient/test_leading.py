import pytest
import torch
from torch import nn

from helpers.cases import BY_NAME
from skgeo import SkgeoError
from skgeo.quotient import layer_spectra, leading_eigenvalues

no_gap = pytest.mark.filterwarnings("ignore::skgeo.RankAmbiguityWarning")


@no_gap
@pytest.mark.parametrize("likelihood", ["categorical", "gaussian", "poisson", "bernoulli"])
@pytest.mark.parametrize("name", ["mlp", "attention", "lstm", "residual", "conv2d"])
def test_leading_eigenvalues_are_those_of_the_whole_spectrum(name, likelihood):
    case = BY_NAME[name]
    module, inputs = case.module(), case.inputs()
    for spectrum in layer_spectra(module, inputs, likelihood=likelihood):
        count = spectrum.eigenvalues.shape[1]
        found, errors = leading_eigenvalues(
            module,
            inputs,
            spectrum.layer.name,
            n_values=count,
            n_steps=count,
            likelihood=likelihood,
            batch_size=2,
        )
        torch.testing.assert_close(found, spectrum.eigenvalues, rtol=1e-8, atol=1e-13)
        assert (errors >= 0).all()


def test_few_steps_of_many_outputs_with_their_errors():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 40), nn.Tanh(), nn.Linear(40, 300)).double()
    X = torch.randn(4, 5, dtype=torch.float64)
    exact = layer_spectra(net, X, layers=["0"], likelihood="categorical")[0].eigenvalues
    found, errors = leading_eigenvalues(
        net, X, "0", n_values=3, n_steps=30, likelihood="categorical"
    )
    assert (found <= exact[:, :3] * (1 + 1e-12)).all()
    distance = (found.unsqueeze(-1) - exact.unsqueeze(1)).abs().amin(-1)
    assert (distance <= errors + 1e-12).all()
    torch.testing.assert_close(found[:, 0], exact[:, 0], rtol=1e-3, atol=0)


def test_more_values_than_there_are_is_refused():
    case = BY_NAME["mlp"]
    with pytest.raises(SkgeoError, match="has 2 eigenvalues"):
        leading_eigenvalues(case.module(), case.inputs(), "1", likelihood="categorical")
