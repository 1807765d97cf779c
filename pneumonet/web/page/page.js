// What the browser does by itself: paste and drop, the size guard, the viewer, copying, and showing what has arrived.
// Gradio draws the page anew whenever it likes, so every listener sits on the document.
(() => {
  "use strict";

  const byId = (id) => document.getElementById(id);
  const filmInput = () => document.querySelector("#film-file input[type=file]");

  function announce(text) {
    const announcer = byId("announcer");
    if (announcer) announcer.textContent = text;
  }

  // --- A film by paste, by drop beside the drop area, or over the limit ---

  function isTooLarge(files) {
    const notice = byId("too-large");
    if (!notice) return false;
    const most = Number(notice.dataset.maxBytes);
    notice.hidden = ![...files].some((file) => file.size > most);
    return !notice.hidden;
  }

  function hideNotices() {
    for (const id of ["too-large", "one-film"]) byId(id)?.toggleAttribute("hidden", true);
  }

  // A film that lies there already has taken the input's place: take it away first.
  async function emptyInput() {
    for (let tries = 0; tries < 40; tries += 1) {
      const input = filmInput();
      if (input) return input;
      if (tries === 0) document.querySelector("#film-file .icon-button-wrapper button")?.click();
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    return null;
  }

  async function choose(files) {
    const file = files[0];
    hideNotices();
    if (isTooLarge([file])) return;
    const input = await emptyInput();
    if (!input) return;
    const transfer = new DataTransfer();
    transfer.items.add(file);
    input.files = transfer.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
    if (files.length > 1) byId("one-film")?.toggleAttribute("hidden", false);
  }

  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length === 0) return;
    event.preventDefault();
    choose(files);
  });

  document.addEventListener("dragover", (event) => event.preventDefault());

  document.addEventListener("drop", (event) => {
    // A copy: the event's own list is empty once the event is over.
    const files = [...(event.dataTransfer?.files ?? [])];
    const inside = event.target.closest?.("#film-file");
    if (inside && filmInput() && files.length < 2 && !isTooLarge(files)) return hideNotices();
    event.preventDefault();
    event.stopImmediatePropagation();
    if (files.length > 0) choose(files);
  }, true);

  document.addEventListener("change", (event) => {
    if (event.target !== filmInput()) return;
    hideNotices();
    if (!isTooLarge(event.target.files)) return;
    event.stopImmediatePropagation();
    event.target.value = "";
  }, true);

  // A phone offers its camera where pictures are asked for; a film may as well be a file of any name.
  document.addEventListener("click", (event) => {
    const input = event.target.closest?.("#film-file") && filmInput();
    if (input && matchMedia("(pointer: coarse)").matches) input.accept = "image/*,application/dicom,.dcm,*/*";
  }, true);

  document.addEventListener("click", (event) => {
    if (event.target.closest?.("#analyse, #answer-anyway, .pn-example")) hideNotices();
  }, true);

  // --- The viewer ---

  function showLayer(viewer) {
    const label = byId("map-label").value;
    const source = byId("map-source").value;
    for (const layer of viewer.querySelectorAll(".pn-heat img")) {
      layer.hidden = layer.dataset.label !== label || layer.dataset.source !== source;
      if (!layer.hidden) viewer.querySelector("[data-caption]").textContent = layer.dataset.words;
    }
  }

  const ranges = {
    "map-opacity": (viewer, value) => viewer.style.setProperty("--heat", `${value}%`),
    "map-compare": (viewer, value) => {
      viewer.style.setProperty("--cut", `${value}%`);
      viewer.toggleAttribute("data-cut", value > 0);
    },
  };

  function follow(viewer, control) {
    const setRange = ranges[control.id];
    if (!setRange) return showLayer(viewer);
    setRange(viewer, Number(control.value));
    const output = viewer.querySelector(`output[for=${control.id}]`);
    output.textContent = control.value + output.dataset.suffix;
  }

  document.addEventListener("input", (event) => {
    const viewer = event.target.closest?.("[data-viewer]");
    if (viewer) follow(viewer, event.target);
  });

  // Gradio may turn one answer's elements into the next one's, and with them what was chosen there.
  function reset(viewer) {
    for (const control of viewer.querySelectorAll("select, input")) {
      control.value = control.querySelector("option[selected]")?.value ?? control.defaultValue;
    }
    for (const control of viewer.querySelectorAll("#map-label, input")) follow(viewer, control);
  }

  // --- Copying ---

  function copyByHand(text) {
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  }

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // Without https there is no clipboard to write to.
      return copyByHand(text);
    }
  }

  document.addEventListener("click", async (event) => {
    const button = event.target.closest?.("[data-copy]");
    if (!button) return;
    const wording = button.dataset.wording ?? button.textContent;
    button.dataset.wording = wording;
    const { copied, notCopied } = button.dataset;
    button.textContent = (await copy(button.dataset.copy)) ? copied : notCopied;
    announce(button.textContent);
    button.focus();
    setTimeout(() => { button.textContent = wording; }, 2000);
  });

  // --- Reports ---

  function save(blob, name) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }

  // A browser says nothing of a download that is refused: the page tells why.
  document.addEventListener("click", async (event) => {
    const link = event.target.closest?.(".pn-reports a");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    // Each press would be one more report to make.
    if (link.ariaBusy === "true") return;
    const notice = link.closest(".pn-reports").querySelector("[data-failed]");
    notice.hidden = true;
    link.ariaBusy = "true";
    try {
      const answer = await fetch(link.href);
      if (answer.ok) return save(await answer.blob(), link.download);
      const { error, hint } = await answer.json();
      notice.textContent = `${error} ${hint}`;
    } catch {
      notice.textContent = notice.dataset.failed;
    } finally {
      link.ariaBusy = "false";
    }
    notice.hidden = false;
  });

  // --- Installing ---

  // Gradio names the manifest without a proxy's prefix, and browsers ask for it without the visitor's login.
  const manifest = document.querySelector("link[rel=manifest]");
  if (manifest) {
    manifest.crossOrigin = "use-credentials";
    manifest.setAttribute("href", "manifest.json");
  }

  // --- The language ---

  let chosen;

  // Gradio's own words follow the browser's language; the page's may be another.
  function set(element, name, text) {
    if (element && element.getAttribute(name) !== text) element.setAttribute(name, text);
  }

  function speak() {
    const header = document.querySelector("[data-language]");
    if (!header) return;
    set(document.documentElement, "lang", header.dataset.language);
    if (header.dataset.language === chosen) {
      chosen = undefined;
      // The header was drawn anew, and with it the list that the visitor was at.
      if (!document.activeElement || document.activeElement === document.body) byId("language")?.focus();
    }
    set(document.documentElement, "dir", header.dataset.direction);
    set(document.querySelector("link[rel=manifest]"), "href", `manifest.json?lang=${header.dataset.language}`);
    const words = byId("film-file-words")?.dataset;
    if (!words) return;
    set(filmInput()?.closest("button, [role=button]"), "aria-label", `${words.choose} ${words.drop}`);
    set(document.querySelector("#film-file .icon-button-wrapper button"), "aria-label", words.clear);
    const text = document.querySelector("#film-file [data-testid=upload-text]");
    if (text) {
      set(text, "data-choose", words.choose);
      set(text, "data-drop", words.drop);
    }
  }

  document.addEventListener("change", (event) => {
    if (event.target.id !== "language") return;
    const tag = event.target.value;
    const secure = location.protocol === "https:" ? "; Secure" : "";
    document.cookie = `pneumonet-language=${tag}; path=/; max-age=31536000; SameSite=Lax${secure}`;
    // Where cookies are refused, as in a frame of another site, the address carries the choice.
    const address = new URL(location.href);
    address.searchParams.set("lang", tag);
    history.replaceState(history.state, "", address);
    chosen = tag;
    byId("language-changed")?.click();
  });

  // --- What has arrived ---

  let arrived;
  let previewed;

  function arrive() {
    speak();
    const film = document.querySelector("#preview img");
    if (film?.src !== previewed) {
      previewed = film?.src;
      if (film) announce(film.dataset.arrival);
    }
    // Gradio changes the panel's element in place, so its key tells one answer from the next.
    const panel = document.querySelector("#result [data-key]");
    if (panel?.dataset.key === arrived) return;
    arrived = panel?.dataset.key;
    if (!panel) return;
    hideNotices();
    panel.querySelectorAll("[data-viewer]").forEach(reset);
    announce(panel.dataset.arrival);
    const heading = panel.querySelector("#result-heading");
    // Whoever has gone on to something else meanwhile keeps the focus there.
    const active = document.activeElement;
    const asked = "#analyse, #answer-anyway, .pn-example";
    if (heading && (!active || active === document.body || active.matches(asked))) {
      heading.focus({ preventScroll: true });
    }
    const { top } = panel.getBoundingClientRect();
    if (top < 0 || top > window.innerHeight * 0.6) panel.scrollIntoView({ block: "start" });
  }

  const changes = { childList: true, subtree: true, attributes: true, attributeFilter: ["data-key", "src", "data-language"] };
  new MutationObserver(arrive).observe(document.documentElement, changes);
})();
