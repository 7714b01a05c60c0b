// Vercel's AI SDK with `@ai-sdk/openai-compatible`.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, streamText, tool } from "ai";
import { z } from "zod";
import { OPENAI_ERRORS, all, main } from "./program.js";

const Weather = z.object({ city: z.string(), celsius: z.number().int() });
const tools = {
  get_weather: tool({
    description: "Weather of a city.",
    inputSchema: z.object({ city: z.string() }),
  }),
};

function asked(q) {
  const provider = createOpenAICompatible({
    name: "headrace",
    baseURL: q.url,
    apiKey: q.key,
    headers: q.headers,
    includeUsage: true,
    supportsStructuredOutputs: true,
  });
  return { model: provider(q.model), prompt: q.prompt, maxRetries: q.retries };
}

const plainCalls = (calls) => calls.map(({ toolName, input }) => [toolName, input]);
const plain = async (q) => (await generateText(asked(q))).text;
const called = async (q) => plainCalls((await generateText({ ...asked(q), tools })).toolCalls);

await main({
  packages: ["ai", "@ai-sdk/openai-compatible", "zod"],
  errors: Object.fromEntries(Object.keys(OPENAI_ERRORS).map((status) => [status, "APICallError"])),
  statusOf: (error) => error.statusCode,
  plain,
  stream: (q) => all(streamText(asked(q)).textStream),
  tools: called,
  parallel_tools: called,
  streamed_tools: async (q) => plainCalls(await streamText({ ...asked(q), tools }).toolCalls),
  json_schema: async (q) => (await generateObject({ ...asked(q), schema: Weather })).object,
  usage: async (q) => {
    const { inputTokens, outputTokens } = await streamText(asked(q)).usage;
    return [inputTokens, outputTokens];
  },
  retry: plain,
  cancel: async (q) => {
    const leaving = new AbortController();
    const { textStream } = streamText({ ...asked(q), abortSignal: leaving.signal });
    for await (const piece of textStream) if (piece) break;
    leaving.abort();
  },
});
