// The gateway's endpoints. Everything is relative to where the page came from.

const path = (...parts) => "/v1/" + parts.map(encodeURIComponent).join("/");

async function ask(url, options) {
  const response = await fetch(url, options);
  const body = await response.json().catch(() => ({}));
  if (!response.ok) {
    const error = new Error(body.error ?? `the gateway answered ${response.status}`);
    error.status = response.status;
    throw error;
  }
  return body;
}

export const recommendations = (user) => ask(path("users", user, "recommendations"));
export const userEvents = (user) => ask(path("users", user, "events"));
export const version = () => ask("/version");

export function itemFacts(ids) {
  return ask(path("items") + "?" + new URLSearchParams(ids.map((id) => ["id", id])));
}

export function postEvent(event) {
  return ask(path("events"), {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(event),
  });
}

export function newId() {
  // randomUUID exists on https and loopback only.
  if (crypto.randomUUID) return crypto.randomUUID();
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const RETRY_MS = 3000;

// A stream of server-sent events that comes back after a refusal and rests while nobody looks:
// browsers allow only six connections to one server.
class Stream {
  constructor(url, handlers) {
    this.url = url;
    this.handlers = handlers;
    this.closed = false;
    this.onVisibility = () => (document.hidden ? this.disconnect() : this.connect());
    document.addEventListener("visibilitychange", this.onVisibility);
    if (!document.hidden) this.connect();
  }

  connect() {
    if (this.closed || this.source) return;
    clearTimeout(this.timer);
    const source = new EventSource(this.url);
    this.source = source;
    for (const [name, handler] of Object.entries(this.handlers)) {
      if (name !== "lost") source.addEventListener(name, (event) => handler(JSON.parse(event.data)));
    }
    source.addEventListener("error", () => {
      this.handlers.lost?.();
      if (source.readyState === EventSource.CLOSED && this.source === source) {
        this.disconnect();
        this.timer = setTimeout(() => this.connect(), RETRY_MS);
      }
    });
  }

  disconnect() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }

  close() {
    this.closed = true;
    document.removeEventListener("visibilitychange", this.onVisibility);
    this.disconnect();
  }
}

export const followStats = (handlers) => new Stream(path("stats", "stream"), handlers);
export const followUser = (user, handlers) => new Stream(path("users", user, "snapshots"), handlers);
