"""Pure functions of time: learning rates, cadences, averaging."""

import pytest
import torch
from torch import nn

from restorer.training.averaging import AveragingConfig, decay_at, update_average
from restorer.training.schedule import Cadence, Schedule, d_turns_at, g_updates_before, rate_at


def test_steps_halve_at_each_milestone():
    schedule = Schedule(kind="steps", milestones=(50_000, 100_000, 200_000, 300_000))
    rates = [rate_at(schedule, 1e-4, at, 400_000) for at in (0, 49_999, 50_000, 300_000)]
    assert rates == pytest.approx([1e-4, 1e-4, 5e-5, 6.25e-6])


def test_cosine_restarts_as_basicsr_s_does():
    schedule = Schedule(kind="cosine", periods=(250_000,) * 4)
    for at, expected in ((0, 2e-4), (125_000, 1e-7 + (2e-4 - 1e-7) / 2), (250_000, 2e-4), (1_000_000, 1e-7)):
        assert rate_at(schedule, 2e-4, at, 1_000_000) == pytest.approx(expected)
    assert rate_at(schedule, 2e-4, 249_999, 1_000_000) == pytest.approx(1e-7, rel=1e-3)


def test_linear_is_flat_and_then_falls_to_nothing():
    schedule = Schedule(kind="linear", milestones=(100,))
    assert [rate_at(schedule, 2.0, at, 200) for at in (0, 100, 150, 200)] == pytest.approx([2, 2, 1, 0])
    assert rate_at(Schedule(), 2.0, 10**9, 1) == 2.0


def test_wgan_s_critic_learns_a_hundred_times_at_first_and_now_and_then():
    cadence = Cadence(d_turns=5, burst=100)
    assert [d_turns_at(cadence, step) for step in (0, 24, 25, 499, 500, 501)] == [100, 100, 5, 5, 100, 5]


def test_the_generator_s_updates_are_counted_from_when_it_learns():
    assert [g_updates_before(Cadence(warm_steps=3), step) for step in (0, 3, 4)] == [0, 0, 1]


@pytest.mark.parametrize("wrong", [{"kind": "cosine"}, {"milestones": (0,)}])
def test_a_schedule_that_means_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match=r"periods|at least 1"):
        Schedule(**wrong)


def test_averages_forget_as_their_papers_say():
    assert decay_at(AveragingConfig(decay=0.9, start=10), 9, 1) == 0
    assert decay_at(AveragingConfig(decay=0.9, start=10), 10, 1) == 0.9
    stylegan2 = AveragingConfig(decay=0, half_life=10_000)
    assert decay_at(stylegan2, 0, 32) == pytest.approx(0.5 ** (32 / 10_000))
    ramped = AveragingConfig(decay=0, half_life=10_000, ramp_up=0.05)
    assert decay_at(ramped, 0, 32) == pytest.approx(0.5 ** (32 / (0.05 * 32)))
    assert decay_at(ramped, 10**6, 32) == decay_at(stylegan2, 10**6, 32)


@pytest.mark.parametrize("buffers", [True, False])
def test_the_average_moves_by_its_share(buffers):
    network, average = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
    nn.init.constant_(network.weight, 3.0)
    network.running_mean.fill_(5.0)
    update_average(average, network, 0.75, buffers=buffers)
    assert torch.allclose(average.weight, torch.full((2,), 0.75 * 1 + 0.25 * 3))
    assert average.running_mean[0] == (5.0 if buffers else 0.0)
