// Refresh the figures: load this page again and replace each part marked `data-live`.
// A part with a focused field or a ticked box is left as it is.
(function () {
  "use strict";

  var EVERY_MS = 2000;
  // A slow page, such as a search, is loaded less often: the pause is this many times its load time.
  var TIMES_AS_LONG = 10;
  var dot = document.getElementById("millpond-dot");
  var status = document.getElementById("millpond-status");

  function setStatus(live, words) {
    if (!dot || !status) {
      return;
    }
    dot.className = "status-dot " + (live ? "status-dot-live" : "status-dot-error");
    if (status.textContent !== words) {
      status.textContent = words;
    }
  }

  function inUse(part) {
    return part.contains(document.activeElement) || part.querySelector("input:checked") !== null;
  }

  function replace(fresh) {
    document.querySelectorAll("[data-live]").forEach(function (part) {
      var other = fresh.getElementById(part.id);
      if (other && !inUse(part) && part.innerHTML !== other.innerHTML) {
        part.replaceChildren.apply(part, Array.from(other.childNodes));
      }
    });
  }

  function refresh() {
    if (document.hidden) {
      return Promise.resolve();
    }
    return fetch(window.location.href, { credentials: "same-origin", cache: "no-store" })
      .then(function (answer) {
        if (!answer.ok) {
          throw new Error(answer.status === 503 ? "The broker is away" : "Flower answered " + answer.status);
        }
        return answer.text();
      })
      .then(function (text) {
        replace(new DOMParser().parseFromString(text, "text/html"));
        setStatus(true, "Live");
      })
      .catch(function (error) {
        setStatus(false, error instanceof TypeError ? "Flower is away" : error.message);
      });
  }

  function again() {
    var asked = performance.now();
    refresh().then(function () {
      window.setTimeout(again, Math.max(EVERY_MS, TIMES_AS_LONG * (performance.now() - asked)));
    });
  }

  var all = document.getElementById("choose-all");
  if (all) {
    all.addEventListener("change", function () {
      document.querySelectorAll("input[name=id]").forEach(function (box) {
        box.checked = all.checked;
      });
    });
  }
  if (document.querySelector("[data-live]")) {
    window.setTimeout(again, EVERY_MS);
  }
}());
