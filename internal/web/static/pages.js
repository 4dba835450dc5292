// What scripts improve on Drawbridge's pages. Everything works without them.
document.addEventListener("DOMContentLoaded", () => {
  // The clipboard is there on https and on this machine.
  for (const button of navigator.clipboard ? document.querySelectorAll("[data-copy]") : []) {
    const said = document.createElement("span");
    said.className = "sr";
    said.role = "status";
    button.after(said);
    button.hidden = false;
    button.addEventListener("click", async () => {
      const text = document.getElementById(button.dataset.copy).textContent.trim();
      await navigator.clipboard.writeText(text);
      said.textContent = button.textContent = button.dataset.done;
    });
  }
  for (const time of document.querySelectorAll("time[datetime]")) {
    time.title = time.textContent;
    time.textContent = new Date(time.dateTime).toLocaleString(document.documentElement.lang, { dateStyle: "medium", timeStyle: "short", hourCycle: "h23" });
  }
  for (const e of document.querySelectorAll(".scroll")) {
    if (e.scrollWidth > e.clientWidth) {
      e.tabIndex = 0;
      e.role = "region";
      const headings = [...document.querySelectorAll("h1, h2")].filter((h) => h.compareDocumentPosition(e) & Node.DOCUMENT_POSITION_FOLLOWING);
      e.ariaLabel = (e.querySelector("caption") || headings.pop()).textContent;
    }
  }
  // Countdowns from the seconds that were left at the server: its clock counts, not the browser's.
  const countdowns = document.querySelectorAll("[data-left]");
  const began = performance.now();
  const tick = () => {
    for (const e of countdowns) {
      const left = Math.max(0, Math.round(e.dataset.left - (performance.now() - began) / 1000));
      const two = (n) => String(Math.floor(n)).padStart(2, "0");
      e.textContent = (left >= 3600 ? Math.floor(left / 3600) + ":" + two(left / 60 % 60) : Math.floor(left / 60)) + ":" + two(left % 60);
      e.hidden = false;
      const soon = e.nextElementSibling;
      if (left <= 60 && !soon.textContent) {
        soon.textContent = soon.dataset.soon;
      }
    }
  };
  if (countdowns.length) {
    tick();
    setInterval(tick, 1000);
  }
  const names = new Intl.DisplayNames(document.documentElement.lang, { type: "region" });
  for (const e of document.querySelectorAll("[data-region]")) {
    if (/^[A-Z]{2}$/.test(e.dataset.region)) {
      e.textContent = names.of(e.dataset.region);
    }
  }
  for (const e of document.querySelectorAll("[data-scripted]")) {
    e.hidden = false;
  }
  // What became of the form that was sent is read first.
  const focus = (e) => {
    e.tabIndex = -1;
    e.focus();
  };
  const said = document.querySelector('#problem, main [role="status"]:not(.sr)');
  if (said) {
    focus(said);
  }
  // Where a swap takes away what has the focus, the focus goes to what came in its place.
  let lost = false;
  document.body.addEventListener("htmx:beforeSwap", (e) => { lost = e.detail.target.contains(document.activeElement); });
  document.body.addEventListener("htmx:afterSwap", (e) => {
    if (lost && !e.detail.target.contains(document.activeElement)) {
      focus(e.detail.target);
    }
  });
  // Passkeys: the browser's response goes into the form, which is then sent.
  const passkeys = window.PublicKeyCredential && PublicKeyCredential.parseCreationOptionsFromJSON;
  for (const button of passkeys ? document.querySelectorAll("[data-passkey], [data-create]") : []) {
    const fields = button.form.elements;
    const options = async () => {
      const answer = await fetch(button.dataset.passkey, { method: "POST", body: new URLSearchParams({ token: fields.token ? fields.token.value : "" }) });
      if (!answer.ok) throw new Error(answer.status);
      const challenge = await answer.json();
      fields.challenge.value = challenge.id;
      return challenge.options.publicKey;
    };
    button.hidden = false;
    button.addEventListener("click", async () => {
      const failed = button.nextElementSibling;
      failed.hidden = true;
      try {
        const credential = button.dataset.create
          ? await navigator.credentials.create({ publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(JSON.parse(button.dataset.create).publicKey) })
          : await navigator.credentials.get({ publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(await options()) });
        fields.credential.value = JSON.stringify(credential.toJSON());
        button.form.requestSubmit();
      } catch {
        failed.hidden = false;
      }
    });
  }
});
