"""What the declaration of a contract sets, and the fields that it refuses."""

from typing import Any

import pytest
from pydantic import create_model

from millpond.tasks import contract
from millpond.tasks.contract import Contract, contracts_by_kind
from millpond.tasks.errors import BadContract


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test a registry of its own."""
    monkeypatch.setattr(contract, "_kinds", {})


def test_a_base_class_sees_kind_and_queue_of_a_contract() -> None:
    """They are set when its `__init_subclass__` runs, as in a registry of an application's own."""
    seen = []

    class Shop(Contract):
        def __init_subclass__(cls, **options: Any) -> None:
            super().__init_subclass__(**options)
            seen.append((cls.kind, cls.queue))

    class Order(Shop, kind="shop.order", queue="orders"):
        n: int

    class Refund(Order, kind="shop.refund"):
        reason: str = ""

    assert seen == [("shop.order", "orders"), ("shop.refund", "orders")]
    assert contracts_by_kind() == {"shop.order": Order, "shop.refund": Refund}


def test_a_base_class_may_choose_the_kind() -> None:
    """A kind that it passes on in its `__init_subclass__` is registered like one of the declaration."""

    class Shop(Contract):
        def __init_subclass__(cls, **options: Any) -> None:
            super().__init_subclass__(kind=f"shop.{cls.__name__.lower()}", **options)

    class Order(Shop):
        n: int

    assert Order.kind == "shop.order"
    assert contracts_by_kind() == {"shop.order": Order}


@pytest.mark.filterwarnings("ignore:Field name:UserWarning")
@pytest.mark.parametrize("name", ["kind", "queue", "redacted"])
def test_a_field_with_a_name_of_the_contract_is_refused(name: str) -> None:
    """A task with a field `kind` was sent as the kind that the field named."""
    with pytest.raises(BadContract, match=f"Order has a field '{name}', a name of Contract's own: rename it"):
        create_model("Order", __base__=Contract, __cls_kwargs__={"kind": "shop.order"}, **{name: (str, ...)})  # type: ignore[call-overload]
    assert not contracts_by_kind()
