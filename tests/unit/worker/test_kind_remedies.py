"""The advice for a kind that no worker has: an extra of Millpond's, or the module that declares the kind."""

import pytest

from millpond.tasks.contract import Contract, load_shipped_contracts
from millpond.worker.unknown_kinds import kind_remedy


class Scan(Contract, kind="remedies.scan"):
    """A kind of a user's own."""


@pytest.mark.parametrize("module", ["files", "files.kinds", "email.contract", "shop.files.kinds"])
def test_a_module_of_the_users_with_the_name_of_an_extra_needs_none(
    monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    """An extra would be installed in vain: the workers need the name of the module."""
    monkeypatch.setattr(Scan, "__module__", module)
    assert kind_remedy(Scan.kind) == "start a worker with MILLPOND_KINDS=MODULE, the module that declares it"


def test_a_shipped_kind_needs_its_extra() -> None:
    """A worker without the packages of `files` leaves its handlers out."""
    load_shipped_contracts()
    assert kind_remedy("files.thumbnail") == "install '.[files]' where its workers run"
    assert kind_remedy("squares.square").startswith("start a worker with MILLPOND_KINDS")
