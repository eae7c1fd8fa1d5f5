// Pages work without this: it loads more of them, keeps them fresh, and takes keys.
// Whatever it puts into a page came from the same server as a page, where all text is escaped.

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

async function load(address, signal) {
  const response = await fetch(address, { signal });
  if (!response.ok && response.status !== 400) throw new Error(`${response.status} of ${address}`);
  return new DOMParser().parseFromString(await response.text(), "text/html");
}

const isAtEnd = () => innerHeight + scrollY >= document.documentElement.scrollHeight - 80;
const toEnd = () => scrollTo(0, document.documentElement.scrollHeight);

let seen = $("[data-version]").dataset.version;
let events;

// Forms that show what they find while one types.

for (const form of $$("form[data-live]")) {
  let waiting, request;
  const show = async () => {
    request?.abort();
    request = new AbortController();
    const asked = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
    const address = `${form.getAttribute("action")}?${asked}`;
    try {
      const page = await load(address, request.signal);
      $("#results").replaceWith(document.adoptNode($("#results", page)));
      document.title = page.title;
      history.replaceState(null, "", address);
      prepare();
    } catch (error) {
      if (error.name !== "AbortError") console.warn(error);
    }
  };
  form.addEventListener("input", (event) => {
    clearTimeout(waiting);
    waiting = setTimeout(show, event.target.matches("[type=search], :not([type])") ? 120 : 0);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(waiting);
    show();
  });
}

// What is beyond a page: more rows, earlier and later items.

async function loadMore(link, put) {
  if (link.ariaBusy) return;
  link.ariaBusy = "true";
  try {
    put(await load(link.href));
  } catch (error) {
    link.ariaBusy = null;
    console.warn(error);
  }
}

function follow(selector, put) {
  const link = $(selector);
  if (!link || link.dataset.followed) return;
  link.dataset.followed = "yes";
  const next = () => loadMore(link, (page) => {
    put(page);
    const further = $(selector, page);
    link.replaceWith(...(further ? [document.adoptNode(further)] : []));
    prepare();
  });
  link.addEventListener("click", (event) => {
    if (event.metaKey || event.ctrlKey) return;
    event.preventDefault();
    next();
  });
  new IntersectionObserver((entries) => entries.some((each) => each.isIntersecting) && next(), {
    rootMargin: "600px",
  }).observe(link);
}

const known = (place) => new Set([...place.children].map((each) => each.id || each.dataset.id));
const fresh = (place, page, selector) => {
  const ids = known(place);
  return [...$(selector, page).children].filter((each) => {
    const id = each.id || each.dataset.id;
    return id && !ids.has(id);
  }).map((each) => document.adoptNode(each));
};

let soon;
function prepare() {
  clearTimeout(soon);
  if ($("[data-soon]")) soon = setTimeout(() => refreshSoon(null), 2000); // there will be more then
  if (events && events.logs !== followed()) {
    events.close();
    events = undefined;
    listen();
  }
  follow("[data-more]", (page) => {
    const rows = $("[data-rows]");
    rows.append(...fresh(rows, page, "[data-rows]"));
  });
  follow("[data-earlier]", (page) => {
    const items = $("[data-items]");
    const first = items.firstElementChild;
    const top = first?.getBoundingClientRect().top ?? 0;
    items.prepend(...fresh(items, page, "[data-items]"));
    if (first) scrollBy(0, first.getBoundingClientRect().top - top);
  });
  follow("[data-later]", (page) => {
    const items = $("[data-items]");
    items.append(...fresh(items, page, "[data-items]"));
    const last = $("[data-last]", page)?.dataset.last;
    if (last) $("[data-last]").dataset.last = last;
    if (!$("[data-later]", page)) $("#end").dataset.end = "";
  });
}

// What changes while one looks.

async function reloadRows() {
  const [shown, page] = [$("#results"), await load(location.pathname + location.search)];
  const results = document.adoptNode($("#results", page));
  const [rows, newRows] = [$("[data-rows]", shown), $("[data-rows]", results)];
  const focused = document.activeElement?.closest("[data-id]")?.dataset.id;
  if (rows && newRows) {
    const ours = new Map([...rows.children].map((row) => [row.dataset.id, row]));
    const isNew = new Set([...newRows.children].map((row) => row.dataset.id));
    // What came after the last row of the page still does, if there is more than the page.
    const last = [...rows.children].findLastIndex((row) => isNew.has(row.dataset.id));
    const beyond = last >= 0 && $("[data-more]", results) ? [...rows.children].slice(last + 1) : [];
    const merged = [...newRows.children].map((row) => {
      const same = ours.get(row.dataset.id);
      return same?.isEqualNode(row) ? same : row;
    });
    if (beyond.length) $("[data-more]", results)?.replaceWith($("[data-more]", shown) ?? "");
    rows.replaceChildren(...merged, ...beyond);
    newRows.replaceWith(rows);
  }
  shown.replaceWith(results);
  prepare();
  if (focused) $(`[data-id="${CSS.escape(focused)}"] .title`)?.focus({ preventScroll: true });
}

async function appendItems(address) {
  const place = $("[data-last]");
  const items = $("[data-items]");
  const wasAtEnd = isAtEnd();
  const page = await load(address);
  const arrived = fresh(items, page, "[data-items]");
  if (!arrived.length) return;
  $(".empty", place)?.remove();
  items.append(...arrived);
  place.dataset.last = $("[data-last]", page).dataset.last || place.dataset.last;
  if (wasAtEnd) toEnd();
  else tellFresh(arrived.length);
  if ($("[data-later]", page)) await refresh();
}

function tellFresh(count) {
  const old = $("#fresh");
  const total = count + Number(old?.dataset.count ?? 0);
  const button = Object.assign(document.createElement("button"), {
    id: "fresh", type: "button", textContent: `${total} new below`,
  });
  button.dataset.count = total;
  button.addEventListener("click", () => { button.remove(); toEnd(); });
  old ? old.replaceWith(button) : document.body.append(button);
}
addEventListener("scroll", () => isAtEnd() && $("#fresh")?.remove(), { passive: true });

async function refresh(ids = null) {
  const thread = $("[data-thread]")?.dataset.thread;
  if ($("[data-reload]")) return reloadRows();
  if (thread && $("#end[data-end]") && (!ids || ids.includes(thread))) {
    const last = $("[data-last]").dataset.last;
    return appendItems(`${location.pathname}?${last ? new URLSearchParams({ after: last }) : ""}`);
  }
}

async function refreshLogs() {
  const logs = $("[data-logs]");
  if (!logs || new URLSearchParams(location.search).has("before")) return;
  const filters = new URLSearchParams(logs.dataset.logs);
  filters.set("after", logs.dataset.last);
  return appendItems(`/logs?${filters}`);
}

// One thing after the other, and of what comes meanwhile all at once.
function gathered(work) {
  let running = false;
  let left;
  return async (ids) => {
    left = left === undefined ? ids : left && ids && [...left, ...ids];
    if (running) return;
    running = true;
    while (left !== undefined) {
      const now = left;
      left = undefined;
      try { await work(now); } catch (error) { console.warn(error); }
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
    running = false;
  };
}
const refreshSoon = gathered(refresh);
const refreshLogsSoon = gathered(refreshLogs);

const followed = () => $("[data-logs]")?.dataset.of;
const isLive = followed() || $("[data-reload]") || $("[data-thread]");
function listen() {
  if (events || document.hidden || !isLive) return;
  const logs = followed();
  events = new EventSource(`/events?seen=${seen}${logs ? `&logs=${logs}` : ""}`);
  events.logs = logs;
  events.onopen = () => {
    $("#live").textContent = "";
    document.documentElement.dataset.live = "";
  };
  events.onerror = () => { $("#live").textContent = "not connected"; };
  events.addEventListener("threads", (event) => {
    seen = event.lastEventId;
    refreshSoon(JSON.parse(event.data));
  });
  events.addEventListener("logs", () => refreshLogsSoon(null));
}
// Browsers open few connections to one server: pages that nobody sees keep none.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) { events?.close(); events = undefined; } else listen();
});

setInterval(() => {
  for (const time of $$("time[data-age]")) {
    const seconds = Math.floor((Date.now() - Date.parse(time.dateTime)) / 1000);
    const unit = [[60, 1, "s"], [3600, 60, "min"], [86400, 3600, "h"], [604800, 86400, "d"]]
      .find(([limit]) => seconds >= 0 && seconds < limit);
    if (unit) time.textContent = `${Math.floor(seconds / unit[1])} ${unit[2]} ago`;
  }
}, 20_000);

// Keys and buttons.

function step(by) {
  const all = $$("[data-rows] .title, [data-items] > .item");
  if (!all.length) return;
  const here = document.activeElement?.closest("[data-rows] > li, [data-items] > .item");
  let place = all.findIndex((each) => each === here || here?.contains(each));
  if (place < 0) place = all.findIndex((each) => each.getBoundingClientRect().bottom > 70) - (by > 0 ? 1 : 0);
  const next = all[Math.min(Math.max(place + by, 0), all.length - 1)];
  const target = next.matches("details") ? $("summary", next) : next;
  if (!target.matches("a, summary")) target.tabIndex = -1;
  target.focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
}

function toggleTheme() {
  const root = document.documentElement;
  const isDark = root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
  document.cookie = `rollbook-theme=${root.dataset.theme}; path=/; max-age=31536000; samesite=strict`;
}

function toggleAll() {
  const items = $$("[data-items] > details");
  const open = items.some((each) => !each.open);
  for (const each of items) each.open = open;
}

const showKeys = () => $("#keys").showModal();
const actions = { j: () => step(1), k: () => step(-1), d: toggleTheme, e: toggleAll, "?": showKeys };
let after = "";
addEventListener("keydown", (event) => {
  const field = event.target.closest("input, select, textarea");
  if (event.key === "Escape") {
    for (const menu of $$(".menu[open]")) menu.open = false;
    field?.blur();
  }
  if (field || event.metaKey || event.ctrlKey || event.altKey || $("#keys").open) return;
  const view = after === "g" && $(`.bar [data-key="${CSS.escape(event.key)}"]`);
  after = event.key;
  if (view) view.click();
  else if (event.key === "/") {
    const search = $("[data-search]");
    if (search) { search.focus(); search.select(); } else location.href = "/search";
  } else if (Object.hasOwn(actions, event.key)) actions[event.key]();
  else return;
  event.preventDefault();
});

for (const [id, action] of [["theme", toggleTheme], ["help", showKeys]]) {
  $(`#${id}`).hidden = false;
  $(`#${id}`).addEventListener("click", action);
}
addEventListener("click", (event) => {
  for (const menu of $$(".menu[open]")) if (!menu.contains(event.target)) menu.open = false;
});
for (const text of $$("[data-copy]")) {
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: "Copy" });
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text.textContent);
    button.textContent = "Copied";
  });
  text.after(" ", button);
}
if ($("[data-thread]") || $("[data-logs]")) {
  history.scrollRestoration = "manual";
  const isNarrow = !matchMedia("(min-width: 64rem)").matches;
  if (isNarrow) for (const each of $$("aside > .about")) each.open = false;
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target && target.id !== "end") {
    if (target.matches("details")) target.open = true;
    target.scrollIntoView({ block: "start" });
  } else if (location.hash === "#end" || $("[data-logs]")) toEnd();
}
prepare();
listen();
