"""What a site sent, as a payload: checked before anything is added, since it comes from outside."""

from fedlit.errors import UserError
from fedlit.round.payload import Payload
from fedlit.sites.messages import Message
from fedlit.sites.workplace import Workplace


def payload_of(message: Message, groups: Payload, place: Workplace) -> Payload:
    """Return a site's payload in the names and types of the server's groups; a tensor that it did not send is the
    server's, which it says it has not changed.

    Raises:
        UserError: a name, a shape or a type that the server does not have.
    """
    sent, client = message.group("group"), message.facts.get("client_id")
    known = {f"{group}/{name}": each for group, tensors in groups.items() for name, each in tensors.items()}
    if unknown := sorted(sent.keys() - known.keys()):
        raise UserError(f"client {client} sends {unknown[0]}, which is none of the model's tensors; check its version")
    for name, tensor in sent.items():
        if tensor.shape != known[name].shape or tensor.dtype != known[name].dtype:
            raise UserError(
                f"client {client} sends {name} of shape {tuple(tensor.shape)} in {tensor.dtype}, and it must be "
                f"{tuple(known[name].shape)} in {known[name].dtype}; check its model and its version"
            )
    return {
        group: {
            name: sent[f"{group}/{name}"].to(place.device) if f"{group}/{name}" in sent else each
            for name, each in tensors.items()
        }
        for group, tensors in groups.items()
    }
