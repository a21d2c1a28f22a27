"""Chains, groups, chords, and combinations of them."""

from typing import Any
from uuid import uuid4

from celery import chain, chord, group, signature
from celery.canvas import StampingVisitor
from featured import (
    add,
    added_to_chord,
    app,
    echo,
    fail,
    noted,
    notes,
    on_error,
    replaced,
    request,
    total,
)

from tests.applications.features.feature import PATIENCE, feature, until

C = "Canvas"


class InStamps(StampingVisitor):
    """A visitor that stamps every task."""

    def on_signature(self, sig: Any, **headers: Any) -> dict[str, Any]:
        """Return the stamp."""
        return {"order": 17, "stamped_headers": ["order"]}


feature(C, "`chain`", 16)(lambda: chain(add.s(4, 4), add.s(8)).apply_async().get(PATIENCE))
feature(C, "a chain by `|`", 10)(lambda: (add.s(1, 2) | add.s(3) | add.s(4)).delay().get(PATIENCE))
feature(C, "`group`", [0, 2, 4, 6])(lambda: group(add.s(n, n) for n in range(4))().get(PATIENCE))
feature(C, "`chord`", 90)(lambda: chord((add.s(n, n) for n in range(10)), total.s())().get(PATIENCE))
feature(C, "a chord of one task", 2)(lambda: chord([add.s(1, 1)], total.s())().get(PATIENCE))
feature(C, "a chord of a hundred", 9900)(
    lambda: chord((add.s(n, n) for n in range(100)), total.s())().get(PATIENCE)
)
feature(C, "`map`", [2, 4])(lambda: total.map([(1, 1), (2, 2)]).delay().get(PATIENCE))
feature(C, "`starmap`", [3, 7])(lambda: add.starmap([(1, 2), (3, 4)]).delay().get(PATIENCE))
feature(C, "`chunks`", [[0, 2], [4, 6]])(
    lambda: add.chunks(((n, n) for n in range(4)), 2).group().apply_async().get(PATIENCE)
)
feature(C, "`.si`: an immutable signature", 20)(lambda: (add.s(1, 1) | add.si(10, 10)).delay().get(PATIENCE))
feature(C, "a partial", 11)(lambda: add.s(10).delay(1).get(PATIENCE))
feature(C, "`.set(countdown=…)`", 3)(lambda: add.s(1, 2).set(countdown=0.3).delay().get(PATIENCE))
feature(C, "`.clone`", 9)(lambda: add.s(4).clone((5,)).delay().get(PATIENCE))
feature(C, "a signature from a dictionary", 3)(
    lambda: signature(dict(add.s(1, 2)), app=app).delay().get(PATIENCE)
)
feature(C, "a signature by name", 3)(lambda: app.signature("add", (1, 2)).delay().get(PATIENCE))
feature(C, "a group in a chain becomes a chord", 12)(
    lambda: (group(add.s(1, 1), add.s(2, 2), add.s(3, 3)) | total.s()).delay().get(PATIENCE)
)
feature(C, "a chain of group, task, group", [13, 23])(
    lambda: (group(add.s(1, 1), add.s(0, 1)) | total.s() | group(add.s(10), add.s(20))).delay().get(PATIENCE)
)
feature(C, "a group of chains", [4, 6])(
    lambda: group(add.s(1, 1) | add.s(2), add.s(2, 2) | add.s(2)).delay().get(PATIENCE)
)
feature(C, "a chord of chains", 10)(
    lambda: chord([add.s(1, 1) | add.s(2), add.s(2, 2) | add.s(2)], total.s()).delay().get(PATIENCE)
)
feature(C, "a chord in a chord", 12)(
    lambda: (
        chord([chord([add.s(1, 1), add.s(2, 2)], total.s()), add.s(3, 3)], total.s()).delay().get(PATIENCE)
    )
)
feature(C, "a group of groups", [2, 4, 6])(
    lambda: group(group(add.s(1, 1), add.s(2, 2)), group(add.s(3, 3))).delay().get(PATIENCE)
)


@feature(C, "an error in a chord's header: `ChordError`", ["ChordError", True, "FAILURE"])
def chord_error() -> Any:
    result = chord([add.s(1, 1), fail.s("header")], total.s()).apply_async()
    error = result.get(PATIENCE, propagate=False)
    return [type(error).__name__, "header" in str(error), result.state]


@feature(C, "`link_error` of a chord", True)
def chord_link_error() -> Any:
    text = uuid4().hex
    body = total.s().on_error(on_error.s())
    chord([add.s(1, 1), fail.s(text)], body).apply_async()
    return _heard(text)


@feature(C, "`link_error` of a chain", True)
def chain_link_error() -> Any:
    text = uuid4().hex
    (add.si(1, 1) | fail.si(text) | add.si(1, 1)).apply_async(link_error=on_error.s())
    return _heard(text)


def _heard(text: str) -> bool:
    """True once the errback has noted a text, False if it has not in time."""
    return bool(until(lambda: any(text in each for each in notes("on_error"))))


@feature(C, "a chain ends at its first error", ["FAILURE", []])
def chain_stops() -> Any:
    there = uuid4().hex
    result = (fail.si("stops") | noted.si(there, "run")).apply_async()
    result.parent.get(PATIENCE, propagate=False)
    add.delay(1, 1).get(PATIENCE)
    return [result.parent.state, notes(there)]


@feature(C, "`link` of a group is refused", "TypeError")
def group_link() -> Any:
    try:
        group(add.s(1, 1), add.s(2, 2)).apply_async(link=noted.si("link", "x"))
    except TypeError as error:
        return type(error).__name__
    return "accepted"


feature(C, "`self.replace` in a chain", 108)(lambda: (replaced.s(7) | add.s(1)).delay().get(PATIENCE))
feature(C, "`self.replace` in a chord", 209)(
    lambda: chord([replaced.s(7), replaced.s(2)], total.s()).delay().get(PATIENCE)
)
feature(C, "`add_to_chord`", 1003)(
    lambda: chord([added_to_chord.s(1), add.s(0, 1)], total.s()).delay().get(PATIENCE) - 0
)


@feature(C, "stamps (`stamp(order=…)`)", {"stamps": {"order": 17}, "stamped_headers": ["order"]})
def stamp() -> Any:
    sig = request.s("stamps", "stamped_headers")
    sig.stamp(order=17)
    return sig.delay().get(PATIENCE)


@feature(C, "a `StampingVisitor`", [17, 17])
def visitor() -> Any:
    sig = group(request.s("stamps"), request.s("stamps"))
    sig.stamp(InStamps())
    found = sig.delay().get(PATIENCE)
    return [
        each["stamps"]["order"] if isinstance(each["stamps"]["order"], int) else each["stamps"]["order"][0]
        for each in found
    ]


@feature(C, "an empty group", [])
def empty() -> Any:
    return group([]).apply_async().get(PATIENCE)


@feature(C, "a chain of fifty", 51)
def long_chain() -> Any:
    return chain(add.s(1, 1), *[add.s(1) for _ in range(49)]).apply_async().get(PATIENCE)


feature(C, "a chain with a delay inside", 4)(
    lambda: (add.s(1, 1) | add.s(2).set(countdown=0.3)).delay().get(PATIENCE)
)
feature(C, "a chain across queues", [[3], {}])(
    lambda: (add.s(1, 2).set(queue="second") | echo.s().set(queue="celery")).delay().get(PATIENCE)
)
