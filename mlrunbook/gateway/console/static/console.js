// What is typed into a form is kept in this tab until the form is accepted: a session that ends meanwhile takes no words with it.
(() => {
  "use strict";
  const PREFIX = "typed:";
  const forget = () => Object.keys(sessionStorage).filter((key) => key.startsWith(PREFIX)).forEach((key) => sessionStorage.removeItem(key));
  const fields = (form) => [...form.elements].filter((one) => one.name && one.name !== "csrf" && one.type !== "submit");
  const read = (form) => fields(form).map((one) => (["radio", "checkbox"].includes(one.type) ? one.checked : one.value));

  function fill(form, values) {
    fields(form).forEach((one, at) => {
      if (["radio", "checkbox"].includes(one.type)) one.checked = values[at];
      else one.value = values[at];
    });
  }

  function say(form, key) {
    const said = document.createElement("p");
    said.className = "panel notice row";
    said.setAttribute("role", "status");
    said.append("What you typed before is back. ");
    const drop = document.createElement("button");
    drop.type = "button";
    drop.textContent = "Discard it";
    drop.addEventListener("click", () => { sessionStorage.removeItem(key); location.reload(); });
    said.append(drop);
    form.before(said);
  }

  function keep(form) {
    const key = PREFIX + form.getAttribute("action");
    const shown = JSON.stringify(read(form));
    const kept = sessionStorage.getItem(key);
    if (kept && kept !== shown && !document.querySelector(".error[role=alert]")) {
      const values = JSON.parse(kept);
      if (values.length === fields(form).length) { fill(form, values); say(form, key); }
    }
    form.addEventListener("input", () => sessionStorage.setItem(key, JSON.stringify(read(form))));
  }

  try {
    if (document.querySelector("[data-did]")) forget();
    document.querySelectorAll("form[data-keep]").forEach(keep);
    document.querySelectorAll("form[action='/logout']").forEach((form) => form.addEventListener("submit", forget));
  } catch (error) {
    console.warn("what is typed is not kept:", error); // a browser that keeps nothing: the forms work all the same
  }

  // A second tap while the first is on its way sends nothing.
  document.querySelectorAll("form[method=post]").forEach((form) => {
    form.addEventListener("submit", (event) => {
      if (form.dataset.sent) event.preventDefault();
      form.dataset.sent = "yes";
    });
    window.addEventListener("pageshow", () => delete form.dataset.sent);
  });
})();
