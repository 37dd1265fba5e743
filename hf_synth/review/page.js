"use strict";
(() => {
  const place = document.getElementById("place");
  const help = document.getElementById("help");
  const said = document.getElementById("said");
  const keysOn = document.getElementById("keys-on");
  let busy = false;

  function show(html) {
    place.innerHTML = html; // written by our server, which escapes every value
    const alert = place.querySelector("#alert").textContent;
    const last = document.getElementById("last");
    said.textContent = alert ? "" : last ? last.textContent : "";
    scrollTo(0, 0);
    const title = document.getElementById("title");
    document.title = `${title.textContent} · ${document.title.split(" · ").slice(1).join(" · ")}`;
    title.focus({preventScroll: true});
  }

  async function send(form, button) {
    if (busy) return;
    busy = true;
    place.setAttribute("aria-busy", "true");
    const body = new URLSearchParams(new FormData(form));
    body.set("answer", button.value);
    let problem = "";
    try {
      const reply = await fetch("/decide", {method: "POST", body, headers: {"X-Fragment": "1"}});
      const text = await reply.text();
      if (reply.ok) show(text);
      else problem = text;
    } catch {
      problem = "The review does not answer, and this answer may not be saved. "
        + "Start it again with the same command, and open the address that it prints.";
    }
    busy = false;
    place.removeAttribute("aria-busy");
    if (problem) place.querySelector("#alert").textContent = problem;
  }

  document.addEventListener("submit", event => {
    if (event.target.method !== "post") return;
    event.preventDefault();
    send(event.target, event.submitter);
  });

  document.addEventListener("click", event => {
    if (event.target.closest("#ask-help")) help.showModal();
    const comment = event.target.closest(".comment summary")?.parentElement;
    if (comment && !comment.open) setTimeout(() => comment.querySelector("textarea").focus()); // once it is open
  });

  document.addEventListener("keydown", event => {
    const inText = event.target.closest("textarea");
    if (inText && event.key === "Escape") document.getElementById("title").focus({preventScroll: true});
    if (inText || help.open || event.repeat || event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key !== "?" && !keysOn.checked) return;
    const wanted = CSS.escape(event.key.toLowerCase());
    const found = place.querySelector(`[data-key="${wanted}"]`);
    if (!found) return;
    event.preventDefault();
    if (found.matches("summary") && found.parentElement.open) place.querySelector("textarea").focus();
    else if (!busy) found.click();
  });

  keysOn.checked = sessionStorage.getItem("keys") !== "off";
  keysOn.addEventListener("change", () => sessionStorage.setItem("keys", keysOn.checked ? "on" : "off"));
})();
