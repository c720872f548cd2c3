"""Local networks, rows after rows: the numbers of one go at any height of band, and little that is kept."""

import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from restorer.networks.layers import Conv
from restorer.networks.spec import get_spec
from restorer.networks.stages import Around, Both, Convolved, Each, Skip, passed, streamed
from tests.cases import CASES, random_network, traits_of

STAGED = [case for case in CASES if get_spec(case.name).stages is not None]


def lively(case):
    """A tiny network in float64 in which every tap counts: whatever is read from the wrong row shows."""
    torch.manual_seed(0)
    network = random_network(case).double().requires_grad_(False)
    for parameter in network.parameters():
        parameter.copy_(0.3 * torch.randn_like(parameter))
    return network


def sizes(case):
    """The smallest pictures, flat and upright ones, and one that is higher than what a network sees."""
    step = traits_of(case).multiple_of
    return [(a * step, b * step) for a, b in ((1, 1), (1, 5), (3, 2), (9, 4), (61 // step, 3))]


def test_every_network_that_upscales_can_go_rows_after_rows():
    assert {case.name for case in STAGED} == {case.name for case in CASES if get_spec(case.name).task == "upscale"}


@pytest.mark.parametrize("case", STAGED, ids=str)
@pytest.mark.parametrize("rows", [1, 4, 1000])
@pytest.mark.parametrize("pixels", [1, 40, 10**6])
def test_bands_of_any_height_make_what_one_go_makes(case, rows, pixels):
    network, traits = lively(case), traits_of(case)
    for height, width in sizes(case):
        x = torch.rand(1, case.input[1], height, width, dtype=torch.float64)
        stages = get_spec(case.name).stages(network)
        made = torch.cat(list(streamed(stages, x.split(rows * traits.multiple_of, 2), pixels=pixels)), 2)
        torch.testing.assert_close(made, network(x), rtol=1e-10, atol=1e-10)


def kept_after(case, height, width):
    """Numbers that are kept when so many rows have come."""
    stages = get_spec(case.name).stages(random_network(case).requires_grad_(False))
    x = torch.rand(1, case.input[1], height, width)
    step = 4 * traits_of(case).multiple_of
    for band in x.split(step, 2):
        for _ in passed(stages, band, last=False):
            pass
    return sum(tensor.numel() for stage in stages for tensor in stage.held)


@pytest.mark.parametrize("case", STAGED, ids=str)
def test_what_is_kept_grows_with_the_width_alone(case):
    step = 4 * traits_of(case).multiple_of
    once = kept_after(case, 40 * step, 8 * step)
    assert once == kept_after(case, 50 * step, 8 * step)
    assert 2 * once == kept_after(case, 40 * step, 16 * step)


@pytest.mark.parametrize("case", STAGED, ids=str)
def test_the_traits_say_what_is_kept_for_each_column(case):
    step = 4 * traits_of(case).multiple_of
    width = 8 * step
    kept = kept_after(case, 40 * step, width) / width
    assert kept <= traits_of(case).values_kept <= 1.5 * kept + 100


def test_nothing_is_kept_after_the_last_rows():
    case = STAGED[0]
    stages = get_spec(case.name).stages(lively(case))
    list(streamed(stages, torch.rand(1, 3, 20, 4, dtype=torch.float64).split(3, 2)))
    assert [tensor for stage in stages for tensor in stage.held] == []


def test_a_convolution_of_any_side_sees_zeros_around_the_map_alone():
    torch.manual_seed(0)
    for side in (1, 3, 5, 9):
        conv = Conv(2, 3, side).double()
        x = torch.rand(1, 2, 7, 4, dtype=torch.float64)
        made = torch.cat(list(streamed([Convolved(conv)], x.split(2, 2))), 2)
        torch.testing.assert_close(made, F.conv2d(x, conv.weight, conv.bias, padding=side // 2))


def test_what_pads_in_its_own_way_does_so_at_the_edges_of_the_picture_alone():
    def mirrored(x):
        padded = F.pad(x, (0, 0, 2, 2), mode="reflect")
        return F.avg_pool2d(padded, (5, 1), 1) - x

    x = torch.rand(1, 1, 17, 3, dtype=torch.float64)
    for rows in (3, 4, 17):
        made = torch.cat(list(streamed([Around(mirrored, radius=2)], x.split(rows, 2))), 2)
        torch.testing.assert_close(made, mirrored(x))


def test_two_ways_meet_again_at_the_same_rows():
    torch.manual_seed(0)
    slow, fast = nn.Sequential(*(Conv(1, 1) for _ in range(4))).double(), Conv(1, 1, 1).double()
    x = torch.rand(1, 1, 13, 5, dtype=torch.float64)
    stages = [Both([Convolved(fast)], [Convolved(conv) for conv in slow], torch.sub), Skip([Each(torch.sin)])]
    y = fast(x) - slow(x)
    made = torch.cat(list(streamed(stages, x.split(2, 2))), 2)
    torch.testing.assert_close(made, y + y.sin())


def test_no_stage_holds_a_map_while_others_work_on_what_came_out():
    made = []

    def fresh(x):
        y = x + 1
        made.append(weakref.ref(y))
        return y

    for band in streamed([Each(fresh) for _ in range(20)], torch.rand(1, 2, 64, 8).split(16, 2), pixels=64):
        assert sum(each() is not None for each in made) <= 2, "this one, and none of 19 others"
        del band
    assert len(made) > 20
