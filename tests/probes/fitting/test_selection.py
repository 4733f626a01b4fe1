import pytest
import torch

from vjepa.probes import (
    LabelledTokens,
    ProbeError,
    ProbeSettings,
    Standardize,
    StandardizedProbe,
    fit_probe,
)
from vjepa.probes.attentive import AttentiveProbe
from vjepa.probes.fitting.grid import ProbeGrid
from vjepa.probes.fitting.selection import best_trial
from vjepa.probes.fitting.side_by_side import Plan, fit_attentive, steps_for
from vjepa.probes.fitting.splits import few_per_class, held_out_split
from vjepa.probes.fitting.trials import Mark, ProbeData, Trial
from vjepa.probes.linear import LinearProbe
from vjepa.probes.results import Progress, has_converged, scores_of

QUICK = ProbeSettings(lr=(3e-3,), num_steps=120, batch_size=40, l2=(1e-2, 1.0))
KINDS = pytest.mark.parametrize("kind", ["linear", "attentive"])


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def labelled_tokens(clips: int, seed: int, classes: int = 3, strength: float = 3.0):
    """A mark of its class in one token of each clip, among noise."""
    generator = seeded(seed)
    marks = torch.randn(classes, 16, generator=seeded(99))
    labels = torch.arange(clips) % classes
    tokens = torch.randn(clips, 6, 16, generator=generator)
    place = torch.randint(6, (clips,), generator=generator)
    tokens[torch.arange(clips), place] += strength * marks[labels]
    return tokens, labels


def fitted(kind, *, train=None, val=None, groups=(), **options):
    train, val = train or labelled_tokens(120, 0), val or labelled_tokens(60, 1)
    data = LabelledTokens(*train, groups), LabelledTokens(*val)
    return fit_probe(kind, *data, **{"num_classes": 3, "settings": QUICK, **options})


@KINDS
def test_separable_labels_are_found(kind):
    result = fitted(kind)
    assert result.top1 > 0.9 and result.converged
    assert result.chance == pytest.approx(1 / 3)
    assert torch.tensor(result.scores.confusion).sum() == result.num_val == 60
    right = [result.scores.confusion[i][i] for i in range(3)]
    assert [round(share * 20) for share in result.scores.per_class] == right
    assert [mark.held_out_accuracy for mark in result.history][-1] > 0.7


@KINDS
def test_shuffled_labels_stay_near_chance(kind):
    tokens, labels = labelled_tokens(120, 0)
    result = fitted(kind, train=(tokens, labels[torch.randperm(120, generator=seeded(0))]))
    assert result.top1 < 0.6


@KINDS
def test_a_large_constant_component_does_no_harm(kind):
    constant = 50 * torch.randn(16, generator=seeded(5))
    scale = torch.rand(16, generator=seeded(6)) * 0.1 + 1e-3

    def shared(tokens, labels):
        return tokens * scale + constant, labels

    train, val = shared(*labelled_tokens(120, 0)), shared(*labelled_tokens(60, 1))
    assert fitted(kind, train=train, val=val).top1 > 0.9


def test_without_standardisation_the_constant_does_harm(monkeypatch):
    monkeypatch.setattr(Standardize, "measure", lambda self, tokens: None)
    constant = 50 * torch.randn(16, generator=seeded(5))
    (train, labels), (val, val_labels) = labelled_tokens(120, 0), labelled_tokens(60, 1)
    result = fitted(
        "attentive", train=(0.05 * train + constant, labels), val=(0.05 * val + constant, val_labels)
    )
    assert result.top1 < 0.6


def test_standardize_measures_channels():
    standardize = Standardize(embed_dim=4)
    tokens = torch.randn(300, 5, 4) * torch.tensor([1.0, 10.0, 0.1, 0.0]) + torch.tensor([0.0, 1, 2, 3])
    standardize.measure(tokens)
    flat = standardize(tokens).flatten(0, 1)
    torch.testing.assert_close(flat.mean(0), torch.zeros(4), atol=2e-3, rtol=0)
    torch.testing.assert_close(flat.std(0), torch.tensor([1.0, 1, 1, 0]), atol=1e-3, rtol=0)


@KINDS
def test_a_seed_decides_everything_and_leaves_the_process_alone(kind):
    before = torch.random.get_rng_state()
    once, again = fitted(kind, num_per_class=20), fitted(kind, num_per_class=20)
    assert torch.equal(torch.random.get_rng_state(), before)
    for a, b in zip(once.probe.state_dict().values(), again.probe.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    other = fitted(kind, num_per_class=20, seed=1)
    same = [torch.equal(a, b) for a, b in zip(once.probe.parameters(), other.probe.parameters(), strict=True)]
    assert not all(same)


@KINDS
def test_the_probe_that_is_returned_is_the_one_measured(kind):
    tokens, labels = labelled_tokens(60, 1)
    result = fitted(kind)
    assert scores_of(result.probe(tokens), labels) == result.scores


def test_few_labels_train_and_all_validation_clips_measure():
    result = fitted("linear", num_per_class=5)
    assert (result.num_train, result.num_val) == (15, 60)


def test_clips_without_a_label_are_left_out():
    tokens, labels = labelled_tokens(120, 0)
    labels[::4] = -1
    result = fitted("linear", train=(tokens, labels), groups=["a", "b", "c"] * 40)
    assert result.num_train == 90


def test_grid_settings_change_the_outcome():
    penalised = fitted("linear", settings=ProbeSettings(l2=(10.0,)))
    assert penalised.settings["l2"] == 10.0
    assert penalised.probe.probe.linear.weight.norm() < fitted("linear").probe.probe.linear.weight.norm()
    deep = ProbeSettings(lr=(1e-3,), weight_decay=(3.0,), num_steps=8, batch_size=16, num_heads=4, depth=2)
    result = fitted("attentive", settings=deep)
    assert result.settings == {
        "lr": 1e-3, "weight_decay": 3.0, "num_steps": 8, "batch_size": 16, "num_heads": 4, "depth": 2
    }  # fmt: skip
    assert [mark.step for mark in result.history] == [4, 6, 8]
    assert len(result.probe.probe.pooler.blocks) == 1
    short = fitted("linear", settings=ProbeSettings(l2=(1e-4,), max_iterations=4))
    assert not short.converged or short.history[-1].train_accuracy > 0.99


def test_steps_follow_the_size_of_the_data():
    assert steps_for(ProbeSettings(), 100) == 600
    assert steps_for(ProbeSettings(), 64 * 100) == 2000
    assert steps_for(ProbeSettings(num_steps=7), 64 * 100) == 7


def test_convergence_is_judged_by_the_last_quarter_or_by_solved_training_clips():
    def history(*losses, accuracy=0.5):
        return [Progress(i, loss, accuracy, 0.5) for i, loss in enumerate(losses)]

    assert has_converged(history(2.0, 1.0, 0.97))
    assert not has_converged(history(2.0, 1.0, 0.9))
    assert has_converged(history(2.0, 1.0, 0.9, accuracy=1.0))


def test_the_best_of_a_grid_breaks_ties_by_loss():
    probe = StandardizedProbe(Standardize(embed_dim=4), LinearProbe(embed_dim=4, num_classes=2))
    found = [(0.5, 0.1), (0.7, 0.9), (0.7, 0.8)]
    marks = [Mark(1, 0.0, 0.0, loss, right) for right, loss in found]
    trials = [Trial({"lr": i}, probe, (mark,)) for i, mark in enumerate(marks)]
    assert best_trial(trials).setting == {"lr": 2}


def test_held_out_fifth_takes_every_class():
    labels = torch.arange(100) % 4
    rows, held = held_out_split(labels, (), seeded(0))
    assert sorted(rows.tolist() + held.tolist()) == list(range(100))
    assert labels[held].bincount().tolist() == [5, 5, 5, 5]


def test_held_out_groups_are_whole():
    groups = [f"tub{i // 10}" for i in range(100)]
    rows, held = held_out_split(torch.arange(100) % 2, groups, seeded(0))
    assert len(held) == 20
    assert not {groups[i] for i in rows.tolist()} & {groups[i] for i in held.tolist()}
    lone, kept = held_out_split(torch.arange(100) % 2, ["a"] * 90 + ["b"] * 10, seeded(1))
    assert len(lone) and len(kept)


def test_few_per_class_takes_what_there_is():
    labels = torch.tensor([0] * 10 + [1] * 2)
    rows = few_per_class(labels, 4, seeded(0))
    assert labels[rows].bincount().tolist() == [4, 2]
    assert not torch.equal(rows, few_per_class(labels, 4, seeded(1)))


@pytest.mark.parametrize("depth", [1, 2])
def test_probes_together_score_as_alone(depth):
    probes = [AttentiveProbe(embed_dim=16, num_classes=3, num_heads=2, depth=depth) for _ in range(3)]
    tokens = torch.randn(5, 7, 16)
    for probe, logits in zip(probes, ProbeGrid(probes)(tokens, torch.Tensor.float), strict=True):
        torch.testing.assert_close(logits, probe(tokens))


@pytest.mark.parametrize("depth", [1, 2])
def test_probes_of_a_grid_end_as_if_trained_alone(depth):
    tokens, labels = labelled_tokens(30, 0)
    data = ProbeData(
        tokens, labels, Standardize(embed_dim=tokens.shape[-1]), 3, torch.device("cpu"), len(tokens)
    )
    rows = torch.arange(len(tokens))

    def trained(*rates):
        settings = ProbeSettings(lr=rates, weight_decay=(0.1, 0.5), batch_size=16, depth=depth)
        return fit_attentive(data, Plan(rows, rows[:0], settings, num_steps=4, seed=0))

    together = trained(1e-3, 3e-3)
    for one, other in zip(together, trained(1e-3) + trained(3e-3), strict=True):
        assert one.setting == other.setting
        torch.testing.assert_close(one.probe.state_dict(), other.probe.state_dict(), rtol=1e-4, atol=1e-5)


def test_linear_probe_pools_as_told():
    mean = LinearProbe(embed_dim=16, num_classes=3, pool="mean")
    assert mean.linear.in_features == 16
    assert LinearProbe(embed_dim=16, num_classes=3).linear.in_features == 32


def test_bad_labels_are_refused_and_the_advice_works():
    tokens, labels = labelled_tokens(30, 0)
    none = torch.full_like(labels, -1)
    with pytest.raises(ProbeError, match="no training clip has a label"):
        fitted("linear", train=(tokens, none))
    with pytest.raises(ProbeError, match="no validation clip has a label"):
        fitted("linear", val=(tokens, none))
    with pytest.raises(ProbeError, match="at least two classes"):
        fitted("linear", train=(tokens, torch.zeros_like(labels)))
    with pytest.raises(ProbeError, match=r"have no training clip: ids \[2\]"):
        fitted("linear", train=(tokens, labels.clamp(max=1)))
    with pytest.raises(ProbeError, match="num_classes of at least 3"):
        fitted("linear", num_classes=2)
    assert fitted("linear", num_classes=3).num_train == 120
    with pytest.raises(ValueError, match="at least one value each"):
        ProbeSettings(lr=())
    with pytest.raises(ValueError, match="give at least 1 each"):
        ProbeSettings(batch_size=0)


def test_a_probe_that_has_not_converged_trains_twice_as_long(monkeypatch):
    monkeypatch.setattr("vjepa.probes.fitting.side_by_side.LEAST_STEPS", 20)
    monkeypatch.setattr("vjepa.probes.fitting.side_by_side.EPOCHS", 1)
    slow, fast = (ProbeSettings(lr=(lr,), batch_size=40) for lr in (1e-2, 0.0))
    assert fitted("attentive", settings=slow).settings["num_steps"] == 40
    assert fitted("attentive", settings=fast).settings["num_steps"] == 20
