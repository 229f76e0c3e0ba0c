"""The availabilities of the package, by the names of `cohort.availability`."""

from collections.abc import Mapping

from fedlit.round.availability.base import Always, Availability
from fedlit.round.availability.bernoulli import Bernoulli
from fedlit.round.availability.buffered import Buffered
from fedlit.round.availability.deadline import Deadline
from fedlit.round.availability.trace import Trace

AVAILABILITIES: Mapping[str, type[Availability]] = {
    "always": Always,
    "bernoulli": Bernoulli,
    "trace": Trace,
    "deadline": Deadline,
    "buffered": Buffered,
}
