// Flower's own pages know tasks from events only. Show a note on them while the events are a sample.
(function () {
  "use strict";

  var EVERY_MS = 10000;
  var note = document.getElementById("millpond-sample");

  function sumOfEvents(pools, field) {
    return pools.reduce(function (sum, pool) {
      return sum + pool.events[field];
    }, 0);
  }

  function showNote(pools) {
    var shown = sumOfEvents(pools, "shown");
    var all = shown + sumOfEvents(pools, "left_out");
    note.hidden = all === shown;
    note.textContent =
      "A sample: workers sent the events of " + shown.toLocaleString("en") + " of " + all.toLocaleString("en") +
      " tasks in the last minute, and of all failed tasks. The pages from Pools on count every task.";
  }

  function updateNote() {
    fetch(note.dataset.from, { credentials: "same-origin", cache: "no-store" })
      .then(function (response) {
        return response.ok ? response.json().then(showNote) : undefined;
      })
      .catch(function () {
        // The last note stays; the page itself shows that Flower is away.
      });
  }

  updateNote();
  window.setInterval(updateNote, EVERY_MS);
})();
