"""Models with the interface of Hugging Face, by modules that only imitate it."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from skgeo import FisherRankEstimator, WrappedModel, fisher_trace
from skgeo.exceptions import GeometryWarning, NotAModelError, SkgeoError
from skgeo.fisher import fisher_diagonal
from skgeo.models import fingerprint, resolve_model

N, T, V = 4, 5, 6


class Body(nn.Module):
    """Every output reads all tokens before it that the mask does not hide."""

    main_input_name = "input_ids"
    head = "logits"

    def __init__(self, **config):
        super().__init__()
        self.config = SimpleNamespace(**config)
        self.table = nn.Embedding(V, 3)
        self.out = nn.Linear(3, V)

    def forward(self, input_ids, attention_mask=None, labels=None):
        shown = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        h = torch.tanh((self.table(input_ids) * shown.unsqueeze(2)).cumsum(1))
        logits = self.out(self.pooled(h))
        found = SimpleNamespace(**{self.head: logits})
        if labels is not None:
            found.loss = self.loss(logits, labels)
        return found

    def pooled(self, h):
        return h

    def loss(self, logits, labels):
        return F.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=-100)


class TinyForCausalLM(Body):
    def loss(self, logits, labels):
        return super().loss(logits[:, :-1], labels[:, 1:])


class TinyForMaskedLM(Body):
    pass


class TinyModel(Body):
    head = "last_hidden_state"


class TinyForSequenceClassification(Body):
    def pooled(self, h):
        return h[:, -1]


def made(kind=TinyForCausalLM, **config):
    torch.manual_seed(0)
    return kind(**config).double().eval()


def tokens(seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(V, (N, T), generator=generator)


def padding():
    """Two samples are shorter than the others."""
    lengths = torch.tensor([T, T - 1, T, T - 2])
    return (torch.arange(T) < lengths.unsqueeze(1)).long()


def by_hand(module, X, counted):
    """Trace of the Fisher metric, one position that counts after another."""
    logits = module(**X).logits
    total = 0.0
    for n, t in counted.nonzero().tolist():
        p = logits[n, t].softmax(0).detach()
        rows = torch.stack(
            [
                torch.cat(
                    [
                        g.flatten()
                        for g in torch.autograd.grad(z, module.parameters(), retain_graph=True)
                    ]
                )
                for z in logits[n, t]
            ]
        )
        metric = rows.T @ (torch.diag(p) - torch.outer(p, p)) @ rows
        total += float(metric.trace())
    return total / N


class TestPositions:
    def test_padding_is_left_out(self):
        module = made(TinyForMaskedLM)
        X = {"input_ids": tokens(), "attention_mask": padding()}
        model = WrappedModel.from_hf(module, likelihood="categorical")
        assert fisher_trace(model, X) == pytest.approx(by_hand(module, X, padding()), rel=1e-10)
        every = WrappedModel.from_hf(module, likelihood="categorical", mask=None)
        everywhere = by_hand(module, X, torch.ones(N, T))
        assert fisher_trace(every, X) == pytest.approx(everywhere, rel=1e-10)

    def test_the_last_token_of_a_sample_has_no_next_one(self):
        module = made()
        X = {"input_ids": tokens(), "attention_mask": padding()}
        counted = padding()[:, 1:]
        found = fisher_trace(WrappedModel.from_hf(module), X)
        assert found == pytest.approx(by_hand(module, X, counted), rel=1e-10)

    def test_without_a_mask_only_the_last_is_left_out(self):
        module = made()
        found = fisher_trace(WrappedModel.from_hf(module), {"input_ids": tokens()})
        expected = by_hand(module, {"input_ids": tokens()}, torch.ones(N, T - 1))
        assert found == pytest.approx(expected, rel=1e-10)

    def test_padding_in_front(self):
        module = made()
        X = {"input_ids": tokens(), "attention_mask": padding().flip(1)}
        counted = padding().flip(1) * torch.tensor([1] * (T - 1) + [0])
        found = fisher_trace(WrappedModel.from_hf(module), X)
        assert found == pytest.approx(by_hand(module, X, counted), rel=1e-10)

    def test_one_output_for_a_sample_has_no_positions(self):
        module = made(TinyForSequenceClassification, problem_type="single_label_classification")
        model = WrappedModel.from_hf(module)
        assert model.likelihood == "categorical"
        assert model.mask is None
        X = {"input_ids": tokens(), "attention_mask": padding()}
        assert fisher_trace(model, X) == pytest.approx(
            fisher_trace(
                WrappedModel(module, lambda m, x: m(**x).logits, likelihood="categorical"), X
            )
        )

    def test_hidden_states(self):
        module = made(TinyModel)
        model = WrappedModel.from_hf(module, likelihood="gaussian")
        X = {"input_ids": tokens(), "attention_mask": padding()[1:2].expand(N, T)}

        def without_last(module, X):
            return module(**X).last_hidden_state[:, : T - 1]

        expected = fisher_trace(WrappedModel(module, without_last, likelihood="gaussian"), X)
        assert fisher_trace(model, X) == pytest.approx(expected, rel=1e-10)

    def test_a_mask_that_leaves_nothing(self):
        X = {"input_ids": tokens(), "attention_mask": torch.zeros(N, T, dtype=torch.long)}
        with pytest.raises(SkgeoError, match="No position of any sample counts"):
            fisher_trace(WrappedModel.from_hf(made()), X)
        with pytest.raises(SkgeoError, match="No position of any sample counts"):
            fisher_trace(WrappedModel.from_hf(made()), {"input_ids": tokens()[:, :1]})


class TestLabels:
    @pytest.mark.parametrize("kind", [TinyForCausalLM, TinyForMaskedLM])
    def test_the_score_is_the_gradient_of_the_models_own_loss(self, kind):
        module = made(kind)
        labels = tokens(seed=2).masked_fill(padding() == 0, -100)
        labels[0, 2] = -100
        X = {"input_ids": tokens(), "attention_mask": padding()}
        resolved = resolve_model(WrappedModel.from_hf(module), refit=False)
        samples = resolved.read({**X, "labels": labels})
        assert set(samples.inputs) == {"input_ids", "attention_mask"}
        y, mask = torch.as_tensor(samples.targets), resolved.mask(samples.inputs)
        counted = mask & (y != -100)
        logits = resolved.forward(module, samples.inputs)
        hot = F.one_hot(y.clamp(min=0), V)
        score = (logits.softmax(-1) - hot).detach() * counted.unsqueeze(-1)
        found = torch.autograd.grad(logits, list(module.parameters()), score)
        loss = module(**X, labels=labels).loss * counted.sum()
        for one, other in zip(found, torch.autograd.grad(loss, module.parameters()), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)

    def test_labels_leave_positions_out(self):
        module = made()
        labels = tokens().clone()
        labels[:, 3] = -100
        counted = torch.ones(N, T)
        counted[:, [2, T - 1]] = 0
        X = {"input_ids": tokens()}
        expected = by_hand(module, X, counted)
        model = WrappedModel.from_hf(module)
        assert fisher_trace(model, {**X, "labels": labels}) == pytest.approx(expected, rel=1e-10)
        y = torch.where(counted.bool(), tokens(), -100)
        assert fisher_trace(model, X, y) == pytest.approx(expected, rel=1e-10)
        # A y of one's own replaces the labels.
        every = torch.zeros(N, T, dtype=torch.long)
        assert fisher_trace(model, {**X, "labels": every}, y) == pytest.approx(expected, rel=1e-10)

    def test_explicit_shift(self):
        module = made(TinyForMaskedLM)
        X = {"input_ids": tokens(), "labels": tokens()}
        shifted = WrappedModel.from_hf(module, shift=True)
        expected = by_hand(module, {"input_ids": tokens()}, torch.ones(N, T - 1))
        assert fisher_trace(shifted, X) == pytest.approx(expected, rel=1e-10)
        plain = WrappedModel.from_hf(made(TinyForCausalLM), shift=False)
        expected = by_hand(module, {"input_ids": tokens()}, torch.ones(N, T))
        assert fisher_trace(plain, X) == pytest.approx(expected, rel=1e-10)

    def test_of_another_shape(self):
        X = {"input_ids": tokens(), "labels": tokens()[:, 0]}
        with pytest.raises(SkgeoError, match=r"labels have shape \(4,\)"):
            fisher_trace(WrappedModel.from_hf(made()), X)

    def test_classes_of_samples(self):
        module = made(TinyForSequenceClassification)
        X = {"input_ids": tokens(), "labels": tokens()[:, 0]}
        model = WrappedModel.from_hf(module)
        assert model.likelihood is None
        expected = fisher_trace(model, X["input_ids"], likelihood="categorical")
        assert fisher_trace(model, X) == pytest.approx(expected, rel=1e-12)


class TestData:
    def test_of_every_kind(self):
        X = {"input_ids": tokens(), "attention_mask": padding(), "labels": tokens(seed=2)}
        X["labels"] = X["labels"].masked_fill(padding() == 0, -100)
        items = [{key: value[n] for key, value in X.items()} for n in range(N)]
        lists = [{key: value.tolist() for key, value in item.items()} for item in items]
        model = WrappedModel.from_hf(made())
        expected = fisher_diagonal(model, X)

        class Table:
            """A dataset of dicts, as the package datasets has."""

            def __init__(self, rows):
                self.rows = rows

            def __len__(self):
                return len(self.rows)

            def __getitem__(self, index):
                if isinstance(index, int):
                    return self.rows[index]
                return {key: [row[key] for row in self.rows[index]] for key in self.rows[0]}

        arrays = {key: value.numpy() for key, value in X.items()}
        for data in (arrays, Table(items), Table(lists), DataLoader(items, batch_size=3)):
            np.testing.assert_allclose(fisher_diagonal(model, data), expected, rtol=1e-10)

    def test_an_array_of_tokens(self):
        model = WrappedModel.from_hf(made())
        expected = fisher_trace(model, {"input_ids": tokens()})
        assert fisher_trace(model, tokens().numpy()) == pytest.approx(expected, rel=1e-12)

    def test_both_readings_agree(self):
        X = {"input_ids": tokens(), "attention_mask": padding(), "labels": tokens()}
        model = WrappedModel.from_hf(made())
        bound = list(FisherRankEstimator(model, tol=1e-8).fit(X).summary().values())
        unbound = FisherRankEstimator(tol=1e-8).fit_transform([(model, X)])[0]
        np.testing.assert_allclose(unbound, bound, rtol=1e-10)


class TestModels:
    def test_is_shared_pickled_and_printed(self):
        model = WrappedModel.from_hf(made())
        assert clone(model) is model
        assert repr(model) == (
            "WrappedModel(TinyForCausalLM, forward=HuggingFaceCall, likelihood='categorical', "
            "mask=AttentionMask)"
        )
        again = pickle.loads(pickle.dumps(model))
        assert fingerprint(again) == fingerprint(model)
        assert fingerprint(WrappedModel.from_hf(made(), shift=False)) != fingerprint(model)

    @pytest.mark.parametrize(
        ("name", "shift"),
        [
            ("LlamaForCausalLM", True),
            ("PeftModelForCausalLM", True),
            ("GPT2LMHeadModel", True),
            ("BartForCausalLM", False),
            ("BertForMaskedLM", False),
            ("BertModel", False),
        ],
    )
    def test_who_predicts_the_next_token(self, name, shift):
        model = WrappedModel.from_hf(made(type(name, (Body,), {})))
        assert model.forward.shift is shift
        assert model.mask.shift is shift

    def test_a_decoder_has_its_own_mask(self):
        kind = type("T5ForConditionalGeneration", (Body,), {})
        model = WrappedModel.from_hf(made(kind, is_encoder_decoder=True))
        X = {
            "input_ids": tokens(),
            "attention_mask": padding(),
            "decoder_input_ids": tokens()[:, 1:],
        }
        assert model.mask(X).shape == (N, T - 1)
        assert model.mask({**X, "decoder_attention_mask": padding()[:, 1:]}).sum() == 12 + 1
        with pytest.raises(SkgeoError, match="neither decoder_input_ids"):
            model.mask({"input_ids": tokens()})

    @pytest.mark.parametrize("name", ["XLNetLMHeadModel", "LlavaForConditionalGeneration"])
    def test_a_class_that_does_not_say(self, name):
        module = made(type(name, (Body,), {}))
        with pytest.raises(SkgeoError, match="Pass shift=True or shift=False"):
            WrappedModel.from_hf(module)
        assert WrappedModel.from_hf(module, shift=False).forward.shift is False

    def test_pixels_have_no_tokens(self):
        class TinyViTModel(Body):
            main_input_name = "pixel_values"

        assert WrappedModel.from_hf(made(TinyViTModel)).mask is None

    def test_what_is_refused(self):
        with pytest.raises(NotAModelError, match=r"expected a torch.nn.Module with a .config"):
            WrappedModel.from_hf(nn.Linear(2, 2))
        with pytest.raises(NotAModelError, match="got an object of type type"):
            WrappedModel.from_hf(TinyModel)
        with pytest.raises(SkgeoError, match="Got shift='yes'"):
            WrappedModel.from_hf(made(), shift="yes")
        with pytest.raises(SkgeoError, match="Got mask='attention_mask'"):
            WrappedModel.from_hf(made(), mask="attention_mask")

    def test_other_outputs(self):
        class TinyForQuestionAnswering(Body):
            head = "start_logits"

        with pytest.raises(SkgeoError, match=r"returned SimpleNamespace; .*from_hf expects"):
            fisher_trace(WrappedModel.from_hf(made(TinyForQuestionAnswering)), tokens())

    def test_data_without_names(self):
        with pytest.raises(SkgeoError, match="expected a dict of tensors by the names"):
            fisher_trace(WrappedModel.from_hf(made()), (tokens(), padding()))

    def test_nothing_says_what_is_assumed(self):
        with pytest.warns(GeometryWarning, match="'gaussian'"):
            fisher_trace(WrappedModel.from_hf(made(TinyModel)), tokens())
