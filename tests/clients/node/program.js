// What a Node client's program needs: where Headrace is, what to ask, and how to report.
//
// As python/program.py: a program is an object with a function for each feature, handed to
// `main`; a function asks as the library's users would and returns plain values, which are compared
// here. A feature that the library does not have is named in `lacks`, with the reason.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

const FEATURES = [
  "plain",
  "stream",
  "tools",
  "parallel_tools",
  "streamed_tools",
  "json_schema",
  "usage",
  "retry",
  "cancel",
  "stream_error",
];
const SCENARIOS = {
  tools: "call",
  parallel_tools: "calls",
  streamed_tools: "calls",
  json_schema: "schema",
  retry: "retry",
  cancel: "slow",
  stream_error: "cut",
};
export const TEXT = "Paris is sunny.";
const PARIS = ["get_weather", { city: "Paris" }];
const ROME = ["get_weather", { city: "Rome" }];
const EXPECTED = {
  plain: TEXT,
  tools: [PARIS],
  parallel_tools: [PARIS, ROME],
  streamed_tools: [PARIS, ROME],
  json_schema: { city: "Paris", celsius: 21 },
  usage: [3, 2],
  retry: TEXT,
};

/** Exceptions of the openai package. */
export const OPENAI_ERRORS = {
  400: "BadRequestError",
  401: "AuthenticationError",
  403: "PermissionDeniedError",
  404: "NotFoundError",
  409: "ConflictError",
  413: "APIError",
  415: "APIError",
  422: "UnprocessableEntityError",
  429: "RateLimitError",
  500: "InternalServerError",
  502: "InternalServerError",
  503: "InternalServerError",
  504: "InternalServerError",
};

export const PARAMETERS = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};
export const TOOL = {
  type: "function",
  function: { name: "get_weather", description: "Weather of a city.", parameters: PARAMETERS },
};
const SCHEMA = {
  type: "object",
  properties: { city: { type: "string" }, celsius: { type: "integer" } },
  required: ["city", "celsius"],
  additionalProperties: false,
};
export const RESPONSE_FORMAT = {
  type: "json_schema",
  json_schema: { name: "weather", strict: true, schema: SCHEMA },
};

/** Runs what the environment asks for, with one line for each outcome. */
export async function main(program) {
  // Most libraries raise where they are read; some have another way to tell.
  const client = { stream_error: program.stream, ...program };
  const plan = JSON.parse(process.env.HEADRACE_CLIENTS);
  tell({ versions: Object.fromEntries(client.packages.map((name) => [name, version(name)])) });
  for (const feature of FEATURES) {
    if ((feature in client) === (feature in (client.lacks ?? {})))
      throw new Error(`${feature}: write a function, or give the reason in \`lacks\``);
    if (!(feature in client)) continue;
    for (const side of Object.keys(feature === "retry" ? plan.retries : plan.sides))
      await report(feature, side, () => askFor(client, feature, side, plan));
  }
  if (!client.lacks?.errors)
    for (const about of plan.errors)
      await report(String(about.status), about.side, () => provoke(client, about, plan));
  for (const [feature, detail] of Object.entries(client.lacks ?? {}))
    tell({ feature, side: null, ok: null, detail });
  // Some libraries keep connections open for minutes.
  process.exit(0);
}

async function report(feature, side, asking) {
  const late = AbortSignal.timeout(60_000);
  const tooLate = new Promise((_, reject) =>
    late.addEventListener("abort", () => reject(new Error("no end after 60 s"))),
  );
  try {
    tell({ feature, side, ok: true, detail: await Promise.race([asking(), tooLate]) });
  } catch (error) {
    const detail = `${error?.constructor?.name}: ${error?.message}`.slice(0, 600);
    tell({ feature, side, ok: false, detail });
  }
}

async function askFor(client, feature, side, plan) {
  const tag = `${plan.client}.${feature}.${side}`;
  const place = feature === "retry" ? plan.retries[side] : { url: plan.sides[side] };
  const question = questionOf({
    url: place.url,
    scenario: SCENARIOS[feature] ?? "text",
    tag,
    key: plan.key,
    retries: feature === "retry" ? 2 : 0,
    arrived: () => got(`${plan.control}/arrived/${tag}`),
  });
  if (feature === "stream_error") return raised(client.stream_error(question), plan.breaks[side]);
  const answer = await client[feature](question);
  if (feature === "stream") return checkedStream(answer);
  if (feature === "cancel") {
    await got(`${plan.control}/left/${tag}`);
    return "the backend was left";
  }
  assert.deepEqual(answer, EXPECTED[feature]);
  if (feature === "retry") return checkedWait(`${plan.control}/seen/${place.tag ?? tag}`, place);
  return "as expected";
}

function questionOf({ url, scenario, tag, key, padding = 0, retries = 0, ...more }) {
  const prompt = `[[${scenario} ${tag}]] What is the weather like?` + "x".repeat(padding);
  const root = url.replace(/\/v1$/, "");
  const messages = [{ role: "user", content: prompt }];
  return { url, root, prompt, messages, key, retries, model: "gpt-4o", headers: {}, ...more };
}

function checkedStream(pieces) {
  assert.equal(pieces.join(""), TEXT);
  assert.ok(pieces.filter(Boolean).length >= 3, `came in ${pieces.length} pieces, was sent in 3`);
  return `${pieces.length} pieces`;
}

/** The exception's name; throws when there is none that says so. */
async function raised(asking, says) {
  const error = await asking.then(
    (answer) => assert.fail(`no exception, but ${JSON.stringify(answer)}`),
    (thrown) => thrown,
  );
  assert.ok(error.message?.includes(says), `does not say ${says}: ${error?.stack}`);
  return names(error)[0];
}

async function checkedWait(url, { after_s: after }) {
  const seen = await (await got(url)).json();
  assert.ok(seen.requests >= 2 && seen.waited_s >= after, `${after} s: ${JSON.stringify(seen)}`);
  return `asked to wait ${after} s, waited ${seen.waited_s.toFixed(2)} s`;
}

async function provoke(client, about, plan) {
  const { status, scenario, url, key, model, headers, padding, says } = about;
  const tag = `${plan.client}.${status}`;
  const question = questionOf({ url, scenario, tag, key, model, headers, padding });
  const expected = client.errors[status];
  const error = await client.plain(question).then(
    (answer) => assert.fail(`no exception, but ${JSON.stringify(answer)}`),
    (raised) => raised,
  );
  assert.ok(names(error).includes(expected), `expected ${expected}, got ${error?.stack}`);
  assert.equal((client.statusOf ?? ((raised) => raised.status))(error), status);
  assert.ok(error.message.includes(says), `does not say ${says}: ${error.message}`);
  return names(error)[0];
}

/** Names of an object's class and of all above it. */
function names(object) {
  const found = [];
  for (let kind = object?.constructor; kind?.name; kind = Object.getPrototypeOf(kind))
    found.push(kind.name);
  return found;
}

function got(url) {
  return fetch(url, { signal: AbortSignal.timeout(20_000) });
}

function version(name) {
  const file = new URL(`node_modules/${name}/package.json`, import.meta.url);
  return JSON.parse(readFileSync(file, "utf8")).version;
}

function tell(line) {
  process.stdout.write(JSON.stringify(line) + "\n");
}

// ------------------------------------------------------------ for several clients

/** All that an async iterable gives. */
export async function all(iterable) {
  const found = [];
  for await (const item of iterable) found.push(item);
  return found;
}

/** Tool calls of the openai package, plain; streamed deltas too, which are put together. */
export function callsOf(calls) {
  const whole = [];
  calls.forEach((call, position) => {
    const parts = (whole[call.index ?? position] ??= ["", ""]);
    parts[0] += call.function.name ?? "";
    parts[1] += call.function.arguments ?? "";
  });
  return whole.map(([name, text]) => [name, JSON.parse(text)]);
}

/** Calls by their city: some libraries run them side by side. */
export function sorted(calls) {
  return calls.toSorted((one, other) => one[1].city.localeCompare(other[1].city));
}
