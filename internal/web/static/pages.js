// What scripts improve on Drawbridge's pages. Everything works without them.
document.addEventListener("DOMContentLoaded", () => {
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const text = document.getElementById(button.dataset.copy).textContent.trim();
      await navigator.clipboard.writeText(text);
      button.textContent = button.dataset.done;
    });
  }
  for (const time of document.querySelectorAll("time[datetime]")) {
    time.title = time.textContent;
    time.textContent = new Date(time.dateTime).toLocaleString(document.documentElement.lang, { dateStyle: "medium", timeStyle: "short" });
  }
  const problem = document.getElementById("problem");
  if (problem) {
    problem.tabIndex = -1;
    problem.focus();
  }
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
