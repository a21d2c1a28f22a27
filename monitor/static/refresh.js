// Refresh the figures: load this page again and replace each part marked `data-live`.
// A part with a focused field or a ticked box is left as it is.
(function () {
  "use strict";

  var EVERY_MS = 2000;
  // A slow page, such as a search, is loaded less often: the pause is this many times its load time.
  var PAUSE_PER_LOAD = 10;
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

  function isInUse(part) {
    return part.contains(document.activeElement) || part.querySelector("input:checked") !== null;
  }

  function replaceParts(newPage) {
    document.querySelectorAll("[data-live]").forEach(function (part) {
      var newPart = newPage.getElementById(part.id);
      if (newPart && !isInUse(part) && part.innerHTML !== newPart.innerHTML) {
        part.replaceChildren.apply(part, Array.from(newPart.childNodes));
      }
    });
  }

  function refresh() {
    if (document.hidden) {
      return Promise.resolve();
    }
    return fetch(window.location.href, { credentials: "same-origin", cache: "no-store" })
      .then(function (response) {
        if (!response.ok) {
          throw new Error(response.status === 503 ? "The broker is away" : "Flower answered " + response.status);
        }
        return response.text();
      })
      .then(function (text) {
        replaceParts(new DOMParser().parseFromString(text, "text/html"));
        setStatus(true, "Live");
      })
      .catch(function (error) {
        setStatus(false, error instanceof TypeError ? "Flower is away" : error.message);
      });
  }

  function refreshAndRepeat() {
    var startedAt = performance.now();
    refresh().then(function () {
      window.setTimeout(refreshAndRepeat, Math.max(EVERY_MS, PAUSE_PER_LOAD * (performance.now() - startedAt)));
    });
  }

  var chooseAll = document.getElementById("choose-all");
  if (chooseAll) {
    chooseAll.addEventListener("change", function () {
      document.querySelectorAll("input[name=id]").forEach(function (box) {
        box.checked = chooseAll.checked;
      });
    });
  }
  if (document.querySelector("[data-live]")) {
    window.setTimeout(refreshAndRepeat, EVERY_MS);
  }
}());
