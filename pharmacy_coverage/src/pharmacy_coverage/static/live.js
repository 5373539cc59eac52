// Keeps parts of a page fresh: an element with an id and data-live="seconds" is fetched again, from the page's own
// address, and replaced where it differs. Without this script the page is the same, and a reload does it by hand.
"use strict";

const focusFirst = document.querySelector("[data-focus]");
if (focusFirst) focusFirst.focus();

let isFetching = false;

async function refresh() {
  if (isFetching || document.hidden) return;
  isFetching = true;
  try {
    // The message after a form belongs to the first look only.
    const address = new URL(location.href);
    address.searchParams.delete("done");
    const response = await fetch(address, { headers: { accept: "text/html" }, credentials: "same-origin" });
    if (!response.ok || response.redirected) return;
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    for (const element of document.querySelectorAll("[data-live][id]")) {
      const other = fresh.getElementById(element.id);
      if (!other || other.innerHTML === element.innerHTML) continue;
      // Never under somebody's hands: a text that is being typed, a selection.
      const isHeld = element.contains(document.activeElement) && document.activeElement.matches("input, textarea, select");
      if (isHeld || element.querySelector("details[open]")) continue;
      const focused = element.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
      element.innerHTML = other.innerHTML;
      element.dataset.live = other.dataset.live ?? element.dataset.live;
      if (focused) element.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
    }
  } catch {
    // Offline, or the server restarts: the next round will tell.
  } finally {
    isFetching = false;
  }
}

function interval() {
  const wanted = [...document.querySelectorAll("[data-live]")].map((element) => Number(element.dataset.live) || 4);
  return wanted.length ? Math.min(...wanted) * 1000 : 0;
}

(async () => {
  for (let wait = interval(); wait; wait = interval()) {
    await new Promise((wake) => setTimeout(wake, wait));
    await refresh();
  }
})();
