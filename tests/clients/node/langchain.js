// LangChain JS: ChatOpenAI with `bindTools` and `withStructuredOutput`.
import { tool } from "@langchain/core/tools";
import { ChatOpenAI } from "@langchain/openai";
import { z } from "zod";
import { OPENAI_ERRORS, all, main } from "./program.js";

const Weather = z.object({ city: z.string(), celsius: z.number().int() });
const getWeather = tool(async ({ city }) => `sunny in ${city}`, {
  name: "get_weather",
  description: "Weather of a city.",
  schema: z.object({ city: z.string() }),
});

function model(q, more = {}) {
  return new ChatOpenAI({
    model: q.model,
    apiKey: q.key,
    maxRetries: q.retries,
    configuration: { baseURL: q.url, defaultHeaders: q.headers },
    ...more,
  });
}

const plainCalls = (calls) => calls.map(({ name, args }) => [name, args]);
const joined = (chunks) => chunks.reduce((whole, chunk) => whole.concat(chunk));
const plain = async (q) => (await model(q).invoke(q.prompt)).content;
const tools = async (q) =>
  plainCalls((await model(q).bindTools([getWeather]).invoke(q.prompt)).tool_calls);

await main({
  packages: ["@langchain/openai", "@langchain/core", "openai"],
  errors: OPENAI_ERRORS,
  plain,
  stream: async (q) => (await all(await model(q).stream(q.prompt))).map((chunk) => chunk.content),
  tools,
  parallel_tools: tools,
  streamed_tools: async (q) => {
    const chunks = await all(await model(q).bindTools([getWeather]).stream(q.prompt));
    return plainCalls(joined(chunks).tool_calls);
  },
  json_schema: (q) =>
    model(q).withStructuredOutput(Weather, { method: "jsonSchema", name: "weather" }).invoke(q.prompt),
  usage: async (q) => {
    const whole = joined(await all(await model(q, { streamUsage: true }).stream(q.prompt)));
    return [whole.usage_metadata.input_tokens, whole.usage_metadata.output_tokens];
  },
  retry: plain,
  cancel: async (q) => {
    const leaving = new AbortController();
    const stream = await model(q).stream(q.prompt, { signal: leaving.signal });
    for await (const chunk of stream) if (chunk.content) break;
    leaving.abort();
  },
});
