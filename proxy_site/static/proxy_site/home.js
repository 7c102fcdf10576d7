// The live table of the market: asks the node's own GET /tickers again and again, and shows what
// changed. It keeps what it last saw on the page whatever happens to the node.

const POLL = 2_000; // milliseconds between two requests
const HEALTH_POLL = 60_000; // milliseconds
const LONGEST_WAIT = 30_000; // milliseconds between two tries while the node doesn't answer
const ANSWER_TIMEOUT = 10_000; // milliseconds
const OLD = 60; // seconds since the node's last trusted update
const TEXT_KEYS = new Set(["symbol", "exchange", "sector"]);

// The boards of Vietnam's exchanges write 64,300 and 1,630.00.
const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const twoDecimals = new Intl.NumberFormat("en-US", {
  minimumFractionDigits: 2,
  maximumFractionDigits: 2,
});
const short = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });
const fullDate = new Intl.DateTimeFormat("en-GB", {
  weekday: "short",
  day: "numeric",
  month: "short",
  year: "numeric",
  timeZone: "UTC",
});
const shortDate = new Intl.DateTimeFormat("en-GB", {
  day: "numeric",
  month: "short",
  timeZone: "UTC",
});

const byId = (id) => document.getElementById(id);
const listings = JSON.parse(byId("listings").textContent);
const table = byId("market");
const filters = {
  text: byId("filter-text"),
  exchange: byId("filter-exchange"),
  sector: byId("filter-sector"),
};

const rows = new Map(); // symbol -> { quote, element, cells }
let sorting = { key: "symbol", descending: false };
let tradingDay = byId("trading-day").dateTime;

// --- The market -----------------------------------------------------------------------------------

/** What a row shows of a symbol's last two bars (the older one is missing on its first day). */
function quoteOf(symbol, bars) {
  const bar = bars.at(-1);
  const previous = bars.length > 1 ? bars.at(-2).close : null;
  const [exchange, sector] = listings[symbol] ?? ["", ""];
  const precision = exchange === "INDEX" ? 100 : 1;
  // Rounded as it is shown: adjusted histories have fractions of a dong, and nothing may be "up 0".
  const change =
    previous === null ? null : Math.round((bar.close - previous) * precision) / precision;
  return {
    symbol,
    exchange,
    sector,
    day: bar.time.slice(0, 10),
    last: bar.close,
    change,
    percent: change === null ? null : (100 * change) / previous,
    high: bar.high,
    low: bar.low,
    volume: bar.volume,
  };
}

function direction(change) {
  return change === null || change === 0 ? "same" : change > 0 ? "up" : "down";
}

const price = (quote, value) => (quote.exchange === "INDEX" ? twoDecimals : whole).format(value);
const readable = (name) => name.replaceAll("_", " ");

function signed(value, text) {
  return (value > 0 ? "+" : value < 0 ? "−" : "") + text;
}

function changeText(quote) {
  const { change } = quote;
  return change === null ? "–" : signed(change, price(quote, Math.abs(change)));
}

function percentText({ change, percent }) {
  return percent === null ? "–" : `${signed(change, twoDecimals.format(Math.abs(percent)))}%`;
}

// --- Rows -----------------------------------------------------------------------------------------

function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function newRow(symbol) {
  const row = element("tr");
  const heading = element("th");
  heading.scope = "row";
  const cells = {
    symbol: element("span", "symbol", symbol),
    day: element("span", "beside"),
    exchangeBeside: element("span", "beside until-wide"),
    sectorBelow: element("span", "below until-wide"),
    exchange: element("td", "quiet from-wide"),
    sector: element("td", "quiet from-wide"),
    last: element("span"),
    range: element("span", "below range until-medium"),
    change: element("td", "number trend arrow from-medium"),
    percent: element("span", "trend"),
    changeBelow: element("span", "below until-medium"),
    high: element("td", "number from-medium"),
    low: element("td", "number from-medium"),
    volume: element("span", "from-medium"),
    volumeShort: element("span", "until-medium"),
  };
  heading.append(cells.symbol, " ", cells.exchangeBeside, " ", cells.day, cells.sectorBelow);
  const last = element("td", "number last");
  last.append(cells.last, cells.range);
  const percent = element("td", "number");
  percent.append(cells.percent, cells.changeBelow);
  const volume = element("td", "number");
  volume.append(cells.volume, cells.volumeShort);
  const { exchange, sector, change, high, low } = cells;
  row.append(heading, exchange, sector, last, change, percent, high, low, volume);
  row.addEventListener("animationend", () => delete row.dataset.flash);
  return { element: row, cells, quote: null };
}

function showQuote(row, quote) {
  const { cells } = row;
  const behind = quote.day < tradingDay;
  const texts = {
    day: behind ? shortDate.format(new Date(quote.day)) : "",
    exchangeBeside: quote.exchange,
    sectorBelow: readable(quote.sector),
    exchange: quote.exchange || "–",
    sector: readable(quote.sector) || "–",
    last: price(quote, quote.last),
    range: `${price(quote, quote.low)}–${price(quote, quote.high)}`,
    change: changeText(quote),
    percent: percentText(quote),
    changeBelow: changeText(quote),
    high: price(quote, quote.high),
    low: price(quote, quote.low),
    volume: whole.format(quote.volume),
    volumeShort: short.format(quote.volume),
  };
  for (const [name, text] of Object.entries(texts)) {
    if (cells[name].textContent !== text) cells[name].textContent = text;
  }
  row.element.dataset.direction = direction(quote.change);
  row.element.classList.toggle("behind", behind);
  markSuspect(row, quote.symbol);
  row.quote = quote;
}

/** The last day that at least half of the symbols have; one odd row is no new day. */
function marketsDay(quotes) {
  const days = quotes.map((quote) => quote.day).sort();
  return days[Math.floor(days.length / 2)] ?? "";
}

function markSuspect(row, symbol) {
  const reason = suspects.get(symbol);
  row.element.classList.toggle("suspect", reason !== undefined);
  row.cells.symbol.title = reason ? `The last good bar is shown: ${reason}` : "";
}

function showMarket(market) {
  const quotes = Object.entries(market)
    .filter(([, bars]) => bars.length)
    .map(([symbol, bars]) => quoteOf(symbol, bars));
  const day = marketsDay(quotes);
  if (day > tradingDay) tradingDay = day;
  for (const [symbol, row] of rows) {
    if (!(symbol in market)) {
      row.element.remove();
      rows.delete(symbol);
    }
  }
  for (const quote of quotes) {
    const row = rows.get(quote.symbol) ?? newRow(quote.symbol);
    const held = row.quote;
    rows.set(quote.symbol, row);
    showQuote(row, quote);
    if (held && Object.keys(quote).some((key) => quote[key] !== held[key])) {
      row.element.dataset.flash = direction(quote.last - held.last);
    }
  }
  showSummary(quotes);
  arrange();
}

function showSummary(quotes) {
  const day = byId("trading-day");
  day.dateTime = tradingDay;
  day.textContent = fullDate.format(new Date(tradingDay));
  const shares = quotes.filter((q) => q.exchange !== "INDEX" && q.day === tradingDay);
  for (const name of ["up", "same", "down"]) {
    const count = shares.filter((q) => direction(q.change) === name).length;
    byId(`count-${name}`).textContent = whole.format(count);
  }
  byId("traded").textContent = whole.format(shares.reduce((sum, q) => sum + q.volume, 0));
  byId("indices").replaceChildren(
    ...quotes.filter((q) => q.exchange === "INDEX").flatMap(indexHeadline),
  );
}

function indexHeadline(quote) {
  const value = element("dd", "index");
  const trend = element("span", "trend arrow", `${changeText(quote)} (${percentText(quote)})`);
  value.dataset.direction = direction(quote.change);
  value.append(element("span", "", price(quote, quote.last)), " ", trend);
  return [element("dt", "", quote.symbol), value];
}

// --- Order and filters ----------------------------------------------------------------------------

function compare(a, b) {
  const [x, y] = [a.quote[sorting.key], b.quote[sorting.key]];
  if (x === null || y === null) return (x === null) - (y === null);
  const order = TEXT_KEYS.has(sorting.key) ? x.localeCompare(y) : x - y;
  return (sorting.descending ? -order : order) || a.quote.symbol.localeCompare(b.quote.symbol);
}

function matches({ symbol, exchange, sector }) {
  const text = filters.text.value.trim().toUpperCase();
  return (
    (!filters.exchange.value || filters.exchange.value === exchange) &&
    (!filters.sector.value || filters.sector.value === sector) &&
    symbol.includes(text)
  );
}

function arrange() {
  const sorted = [...rows.values()].sort(compare);
  const body = byId("rows");
  // Moving a row ends a selection of text in it: only when the order is another.
  if (sorted.some((row, i) => row.element !== body.children[i])) {
    body.append(...sorted.map((row) => row.element));
  }
  for (const row of sorted) {
    row.element.hidden = !matches(row.quote);
    // Or it would flash when it is shown again.
    if (row.element.hidden) delete row.element.dataset.flash;
  }
  const shown = sorted.filter((row) => !row.element.hidden).length;
  setText("count", sorted.length ? `${shown} of ${sorted.length} symbols` : "");
  if (sorted.length) setText("message", shown ? "" : "No symbol matches.");
}

function sortBy(heading) {
  const { key } = heading.dataset;
  const descending = sorting.key === key ? !sorting.descending : !TEXT_KEYS.has(key);
  sorting = { key, descending };
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
  arrange();
}

function fillFilters() {
  const options = { exchange: new Set(), sector: new Set() };
  for (const [exchange, sector] of Object.values(listings)) {
    options.exchange.add(exchange);
    options.sector.add(sector);
  }
  for (const [name, values] of Object.entries(options)) {
    filters[name].append(...[...values].sort().map((value) => new Option(readable(value), value)));
  }
}

// --- The connection -------------------------------------------------------------------------------

let shownTag = null; // the ETag of the market on the page
let age = null; // { seconds, at }: the data's age, and when (performance.now()) it was told
let suspects = new Map(); // symbol -> why its last good bar is shown
let failures = 0;
let asking = false;
let timer = 0;

/** Text that a screen reader announces is written only when it is another. */
function setText(id, text) {
  if (byId(id).textContent !== text) byId(id).textContent = text;
}

function ageNow() {
  return age && age.seconds + (performance.now() - age.at) / 1000;
}

function duration(seconds) {
  if (seconds < 90) return `${Math.floor(seconds)} s`;
  if (seconds < 5_400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3_600)} h`;
  return `${Math.round(seconds / 86_400)} days`;
}

function showState(state, text) {
  byId("connection").dataset.state = state;
  setText("state", text);
}

function showAge() {
  const seconds = ageNow();
  setText("age", seconds === null ? "" : `last trusted update ${duration(seconds)} ago`);
  if (failures || shownTag === null) return;
  if (!rows.size) {
    showState("old", "The market is empty");
    setText("message", "The market is empty: the node is loading it for the first time.");
  } else if (seconds === null) showState("old", "No trusted update yet");
  else if (seconds > OLD) showState("old", "The data is old");
  else showState("live", "Live");
}

class Refused extends Error {}

/** Whether a node says that it hasn't loaded its market yet. */
async function isMarketEmpty(response) {
  const answer = await response.json().catch(() => null); // a proxy's own page may be anything
  return answer?.code === "market_empty";
}

async function ask() {
  // "no-cache" sends the ETag along: an unchanged market costs a 304 and no body.
  const response = await fetch(table.dataset.source, {
    cache: "no-cache",
    signal: AbortSignal.timeout(ANSWER_TIMEOUT),
  });
  const isEmpty = response.status === 503 && !rows.size && (await isMarketEmpty(response));
  if (!response.ok && !isEmpty) {
    throw new Refused(`The node can't serve the market (${response.status})`);
  }
  const told = response.headers.get("X-Data-Age");
  const tag = response.headers.get("ETag");
  if (response.ok && (tag === null || tag !== shownTag)) showMarket(await response.json());
  age = told === null ? null : { seconds: Number(told), at: performance.now() };
  shownTag = tag ?? "";
}

/** What the node itself doubts; its answer counts whatever its status is. */
async function askHealth() {
  try {
    const response = await fetch("/health", { signal: AbortSignal.timeout(ANSWER_TIMEOUT) });
    const health = await response.json();
    suspects = new Map((health.suspects ?? []).map(({ symbol, reason }) => [symbol, reason]));
    for (const [symbol, row] of rows) markSuspect(row, symbol);
  } catch (error) {
    console.warn(error); // the marks stay as they were
  }
  setTimeout(askHealth, HEALTH_POLL);
}

async function poll() {
  clearTimeout(timer);
  if (asking || document.hidden) return;
  asking = true;
  let wait = POLL;
  try {
    await ask();
    failures = 0;
  } catch (error) {
    failures += 1;
    // Spread, so that a node that comes back isn't met by all its readers at once.
    wait = Math.min(LONGEST_WAIT, POLL * 2 ** failures) * (0.75 + Math.random() / 2);
    const reason = error instanceof Refused ? error.message : "The node doesn't answer";
    showState("away", `${reason}; trying again in ${Math.round(wait / 1000)} s`);
    console.warn(error);
  } finally {
    asking = false;
  }
  showAge();
  timer = setTimeout(poll, wait);
}

showState("connecting", "Connecting…");
setText("message", "Waiting for the market…");
fillFilters();
for (const heading of table.tHead.rows[0].cells) {
  heading.querySelector("button").addEventListener("click", () => sortBy(heading));
}
for (const control of Object.values(filters)) control.addEventListener("input", arrange);
document.addEventListener("visibilitychange", poll);
window.addEventListener("online", poll);
setInterval(showAge, 1_000);
poll();
askHealth();
