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

/** The program of a client whose models are made by `model`. */
export function programOf(packages, model) {
  const asked = (q) => ({ model: model(q), prompt: q.prompt, maxRetries: q.retries });
  const plain = async (q) => (await generateText(asked(q))).text;
  const called = async (q) => plainCalls((await generateText({ ...asked(q), tools })).toolCalls);
  return {
    packages,
    errors: Object.fromEntries(Object.keys(OPENAI_ERRORS).map((code) => [code, "APICallError"])),
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
    // A stream of text just ends; `onError` hears why.
    stream_error: (q) =>
      new Promise((resolve, reject) => {
        const { textStream } = streamText({ ...asked(q), onError: ({ error }) => reject(error) });
        all(textStream).then(resolve, reject);
      }),
    cancel: async (q) => {
      const leaving = new AbortController();
      const { textStream } = streamText({ ...asked(q), abortSignal: leaving.signal });
      for await (const piece of textStream) if (piece) break;
      leaving.abort();
    },
  };
}

function plainCalls(calls) {
  return calls.map(({ toolName, input }) => [toolName, input]);
}

function compatible(q) {
  const provider = createOpenAICompatible({
    name: "headrace",
    baseURL: q.url,
    apiKey: q.key,
    headers: q.headers,
    includeUsage: true,
    supportsStructuredOutputs: true,
  });
  return provider(q.model);
}

if (process.argv[1].endsWith("/ai_sdk.js"))
  await main(programOf(["ai", "@ai-sdk/openai-compatible", "zod"], compatible));
