// Say on Flower's own pages, which know tasks from events alone, when these are a sample of what ran.
(function () {
  "use strict";

  var EVERY_MS = 10000;
  var note = document.getElementById("pond-sample");

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
      "A sample: the workers told of " + shown.toLocaleString("en") + " of " + all.toLocaleString("en") +
      " tasks in the last minute, and of all that failed. The pages from Pools on count all of them.";
  }

  function look() {
    fetch(note.dataset.from, { credentials: "same-origin", cache: "no-store" })
      .then(function (answer) {
        return answer.ok ? answer.json().then(show) : undefined;
      })
      .catch(function () {
        // What was said last stays; the page itself tells that Flower is away.
      });
  }

  look();
  window.setInterval(look, EVERY_MS);
})();
