// Flower's own pages know tasks from events only. Show a note on them while the events are a sample.
(function () {
  "use strict";

  var EVERY_MS = 10000;
  var note = document.getElementById("millpond-sample");

  function count(pools, what) {
    return pools.reduce(function (sum, pool) {
      return sum + pool.events[what];
    }, 0);
  }

  function show(pools) {
    var shown = count(pools, "shown");
    var all = shown + count(pools, "left_out");
    note.hidden = all === shown;
    note.textContent =
      "A sample: workers sent the events of " + shown.toLocaleString("en") + " of " + all.toLocaleString("en") +
      " tasks in the last minute, and of all failed tasks. The pages from Pools on count every task.";
  }

  function look() {
    fetch(note.dataset.from, { credentials: "same-origin", cache: "no-store" })
      .then(function (answer) {
        return answer.ok ? answer.json().then(show) : undefined;
      })
      .catch(function () {
        // The last note stays; the page itself shows that Flower is away.
      });
  }

  look();
  window.setInterval(look, EVERY_MS);
})();
