"""CUDA on a processor, as late as it may be: nothing that is queued happens before somebody waits for it.

Inside `late_cuda` the devices cpu:0, cpu:1 ... stand for GPUs. What is computed there has its shape at once, and its
numbers only when its stream is reached: until then it holds LATE. Who forgets to wait finds LATE in the picture, and
`unkept` counts what one stream used of another's memory without saying so (Tensor.record_stream): memory that may have
been given away meanwhile.
"""

import contextlib
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from restorer.pipeline import lane

LATE = 0xA5
"""What lies where a whole number will be; floats are NaN."""
WAITING = ("aten::_local_scalar_dense", "aten::equal")
"""What needs numbers here and now, and so waits for all of its stream."""


class Stream:
    """Does what is queued, in order, once somebody needs it."""

    def __init__(self, device):
        self.device, self.queue, self.done = device, [], 0

    def reach(self, end=None):
        """Do the first `end` things that were ever queued, or all."""
        while self.done < (len(self.queue) if end is None else end):
            self.done += 1
            self.queue[self.done - 1]()

    def wait_stream(self, other):
        """From here on nothing happens before all that the other has now."""
        end = len(other.queue)
        self.queue.append(lambda: other.reach(end))

    def record_event(self):
        """A place in the queue, which can be waited for."""
        end = len(self.queue)
        return SimpleNamespace(synchronize=lambda: self.reach(end))


class LateCuda(TorchDispatchMode):
    """Queues what is asked of tensors that were sent to a device, and does the rest at once."""

    def __init__(self):
        super().__init__()
        self.mains, self.entered = {}, []
        self.homes, self.makers = {}, {}
        """Address of memory -> the device that it lies on, and the stream that made it."""
        self.pinned, self.used, self.kept = set(), set(), set()
        self.alive = []  # so that no address comes twice
        self.at_once = False

    def stream(self, device):
        """What computes on a device here and now."""
        inside = [each for each in self.entered if each.device == device]
        return inside[-1] if inside else self.mains.setdefault(device, Stream(device))

    def unkept(self):
        """How many pairs there are of a stream and memory that it used, another made, and no one was told of."""
        return len({(place, stream) for place, stream in self.used if self.makers[place] is not stream} - self.kept)

    def send(self, x, device):
        """Any shape here -> the same on a device, in its own time."""
        stream = self.stream(device)
        made = self.late(self.plainly(torch.empty_like, x), stream)
        stream.queue.append(lambda: self.plainly(made.copy_, x))
        return made

    def fetch(self, x):
        """Any shape -> the same here: waits."""
        if place(x) in self.homes:
            self.stream(self.homes[place(x)]).reach()
        return self.plainly(x.clone)

    def pin(self, x):
        """Any shape -> same: its memory is page-locked from now on."""
        self.pinned.add(place(x))
        self.alive.append(x)
        return x

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """See the class."""
        kwargs = kwargs or {}
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        there = {place(each) for each in given} & self.homes.keys()
        if not there or self.at_once:
            return func(*args, **kwargs)
        (device,) = {self.homes[each] for each in there}  # no operation takes tensors of two devices
        stream = self.stream(device)
        if func.name() in WAITING:
            stream.reach()
            return self.plainly(func, *args, **kwargs)
        self.used |= {(each, stream) for each in there}
        if func._schema.is_mutable:
            written = list(self.written(func, args, kwargs))
            for each in tree_leaves(written):
                if place(each) not in self.pinned:
                    self.lies(each, stream)
            stream.queue.append(lambda: self.plainly(func, *args, **kwargs))
            return written[0] if len(written) == 1 else tuple(written)
        self.at_once = True  # of numbers that are not there yet: only the shapes count
        made = func(*args, **kwargs)
        self.at_once = False
        fresh = [each for each in tree_leaves(made) if place(each) not in {place(one) for one in given}]
        for each in fresh:
            self.late(each, stream)
        if fresh:  # and views get their numbers with what they show
            stream.queue.append(lambda: self.again(func, args, kwargs, made))
        return made

    def again(self, func, args, kwargs, made):
        """Do it now, and put the numbers where they were promised."""
        for promised, each in zip(tree_leaves(made), tree_leaves(self.plainly(func, *args, **kwargs)), strict=True):
            self.plainly(promised.copy_, each)

    def plainly(self, do, *args, **kwargs):
        """Do it at once."""
        before, self.at_once = self.at_once, True
        try:
            with torch.inference_mode():
                return do(*args, **kwargs)
        finally:
            self.at_once = before

    def late(self, x, stream):
        """Any shape -> same: LATE, on the stream's device."""
        self.lies(x, stream)
        return self.plainly(x.fill_, float("nan") if x.is_floating_point() else LATE)

    def lies(self, x, stream):
        """Remember where memory is."""
        self.homes.setdefault(place(x), stream.device)
        self.makers.setdefault(place(x), stream)
        self.alive.append(x)

    def written(self, func, args, kwargs):
        """Arguments that an operation writes into."""
        for number, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                yield kwargs[argument.name] if argument.name in kwargs else args[number]


def place(x):
    """Address of a tensor's memory."""
    return x.untyped_storage().data_ptr()


@contextlib.contextmanager
def late_cuda():
    """See the file. Streams, of pipeline/lane.py, works with such devices."""
    late, to = LateCuda(), Tensor.to

    @contextlib.contextmanager
    def inside(stream):
        late.entered.append(stream)
        yield
        late.entered.pop()

    def empty(*size, pin_memory=False, **rest):
        made = torch.empty(*size, **rest)
        return late.pin(late.plainly(made.fill_, LATE)) if pin_memory else made

    def to_device(x, *args, **rest):
        if not (args and isinstance(args[0], torch.device) and args[0].index is not None) or place(x) in late.homes:
            return to(x, *args, **rest)
        assert place(x) in late.pinned, "what is not page-locked is not sent beside other work"
        return late.send(x, args[0])

    def to_host(x):
        return late.fetch(x)

    cuda = SimpleNamespace(Stream=Stream, stream=inside, current_stream=late.stream)
    parts = {"cuda": cuda, "empty": empty, "from_numpy": torch.from_numpy}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lane, "torch", SimpleNamespace(**parts))
        patch.setattr(Tensor, "to", to_device)
        patch.setattr(Tensor, "cpu", to_host)
        patch.setattr(Tensor, "pin_memory", lambda x: late.pin(x.clone()))
        patch.setattr(Tensor, "record_stream", lambda x, stream: late.kept.add((place(x), stream)))
        with late:
            yield late
