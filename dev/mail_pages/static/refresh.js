// Shows new mail as it comes in: asks for anything newer than the page, which the server answers when there
// is something, and then takes the list out of a fresh copy of the page.
"use strict";

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

async function follow() {
  for (;;) {
    const main = document.querySelector("main");
    try {
      await fetch(`/api/messages?after=${main.dataset.version}&wait=10`);
      const page = await (await fetch("/")).text();
      const fresh = new DOMParser().parseFromString(page, "text/html");
      const next = fresh.querySelector("main");
      if (next.innerHTML !== main.innerHTML) {
        main.replaceWith(document.adoptNode(next));
        document.title = fresh.title;
      }
    } catch {
      await pause(2000); // The catcher is away, or this page is being left.
    }
    await pause(200);
  }
}

follow();
