"""The two pictures of a slow pool on the page of pools, in a real browser: light, dark, wide and narrow."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from millpond.broker import server
from millpond.broker.connection import Store, connect
from millpond.broker.keys import window_key
from millpond.broker.outgoing import compose
from millpond.broker.publish import publish
from millpond.broker.stats import elasticity, heartbeats, window
from millpond.broker.stats.elasticity import Elasticity
from millpond.broker.stats.heartbeats import Heartbeat
from millpond.broker.stats.window import Place
from millpond.worker.local.embedded import Embedded
from tests.browser.test_operator import POND
from tests.harness.background import repeating

__all__ = ["POND"]

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

PEER = Place("peer", "10.0.0.7:5432", "psycopg", "shop.orders:41", "order")

#: The texts of the plot: each one's words, its height in pixels, its contrast, and whether another covers it.
TEXTS = """(plot) => {
    const light = (colour) => {
        const [r, g, b] = colour.match(/[0-9.]+/g).slice(0, 3).map((each) => {
            const c = each / 255;
            return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (each) => {
        for (; each; each = each.parentElement) {
            const colour = getComputedStyle(each).backgroundColor;
            if (!colour.startsWith("rgba(0, 0, 0, 0")) return colour;
        }
        return "rgb(255, 255, 255)";
    };
    const whole = plot.getBoundingClientRect();
    const texts = [...plot.querySelectorAll("text")];
    const boxes = texts.map((each) => each.getBoundingClientRect());
    return texts.map((each, n) => {
        const [a, b] = [light(getComputedStyle(each).fill), light(behind(plot))];
        const box = boxes[n];
        return {
            words: each.textContent.trim(),
            height: box.height,
            contrast: (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05),
            covered: boxes.some((other, m) => m !== n && other.left < box.right && box.left < other.right
                && other.top + 2 < box.bottom && box.top + 2 < other.bottom),
            inside: box.left >= whole.left - 1 && box.right <= whole.right + 1 && box.right <= innerWidth,
        };
    });
}"""


def fall_behind(store: Store) -> None:
    """Make the records of a pool of eight slots that wait for a database, and of what was measured of it."""
    now_ms = server.server_time_ms(store)
    fields = {
        **{"ended:order": 200, "service:order": 80_000_000, "busy_us": 78_000_000, "slot_us": 80_000_000},
        **{
            window.place_field(PEER): 70_000_000,
            window.place_field(Place("processor", kind="order")): 8_000_000,
        },
    }
    for earlier in (1, 2, 3):
        key = f"{window_key('email', store.prefix)}{now_ms // window.WINDOW_MS - earlier}"
        store.client.hset(key, mapping=fields)
    step = {"step": 0.97, "step_error": 0.05, "step_part": 6, "step_rate": 15.2}
    elasticity.store_elasticity(
        store,
        "email",
        Elasticity(0.96, 0.04, 8, 4, 20.0, 10.3, 20.0, 60.0, now_ms, 0.4, **step),  # type: ignore[arg-type]
    )


@contextmanager
def beating(store: Store) -> Iterator[None]:
    """Send the heartbeat of a process of the pool for the length of a block."""
    beat = Heartbeat("email.1@h", "email", "h", 1, "threads", 8, 8, 8, 0, False, 60.0, ("email",), cores=4)

    def send() -> None:
        heartbeats.send_heartbeat(store, beat, {})

    send()
    with repeating(send, 2):
        yield


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360], ids=["wide", "narrow"])
def test_the_pictures_of_a_slow_pool_can_be_read(
    open_page: Callable[..., Any], pond: Embedded, scheme: str, width: int, tmp_path: Any
) -> None:
    """Both pictures have their figures, large and clear enough, none over another, none out of sight."""
    with closing(connect(pond.url)) as store, beating(store):
        publish(
            store,
            [compose("email.send", {"n": n}, queue="email", sent_at_ms=0) for n in range(400)],
            policy="exempt",
        )
        page = open_page(scheme=scheme, width=width)
        fall_behind(store)
        page.goto("/pools")
        plot = page.locator("svg.millpond-plot").first
        plot.wait_for()
        texts = plot.evaluate(TEXTS)
        page.screenshot(path=tmp_path / f"{scheme}-{width}.png", full_page=True)
        print(tmp_path, texts)
        words = [each["words"] for each in texts]
        assert {"tasks a second", "slots; hollow: predicted", "0", "10", "20", "30"} <= set(words), words
        assert {"4", "6", "8", "12"} <= set(words), words
        for each in texts:
            assert each["height"] >= 10, each
            assert each["contrast"] >= 4.5, each
            assert each["inside"], each
            assert not each["covered"], each
        bar = page.locator(".millpond-slot-time").first
        widths = bar.evaluate("(bar) => [...bar.children].map((each) => each.getBoundingClientRect().width)")
        whole = bar.evaluate("(bar) => bar.getBoundingClientRect().width")
        assert sum(widths) == pytest.approx(whole, abs=2)
        page.get_by_text("peer 10.0.0.7:5432").first.wait_for()
