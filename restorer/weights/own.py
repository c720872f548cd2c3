"""The models that this project trained itself, on pictures that anyone may use; their files are in the package."""

from functools import partial

from restorer.weights.record import Record

_photo = partial(Record, network="srgan", scale=4, licence="Apache-2.0", is_own=True)
OWN: tuple[Record, ...] = ()
