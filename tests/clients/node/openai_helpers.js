// openai-node's helpers: `stream`, `runTools`, `parse` with Zod.
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import { openai } from "./openai.js";
import { OPENAI_ERRORS, PARAMETERS, TEXT, main, sorted } from "./program.js";

const Weather = z.object({ city: z.string(), celsius: z.number().int() });
const completions = (q) => openai(q).chat.completions;
const asked = (q) => ({ model: q.model, messages: q.messages });

/** The calls that `runTools` made before it came to an end. */
async function ran(q, more = {}) {
  const called = [];
  const get_weather = ({ city }) => {
    called.push(["get_weather", { city }]);
    return "sunny";
  };
  const tool = { function: get_weather, parse: JSON.parse, parameters: PARAMETERS };
  const described = { ...tool, name: "get_weather", description: "Weather of a city." };
  const tools = [{ type: "function", function: described }];
  const runner = completions(q).runTools({ ...asked(q), tools, ...more });
  const text = await runner.finalContent();
  if (text !== TEXT) throw new Error(`ended with ${text}`);
  return sorted(called);
}

await main({
  packages: ["openai", "zod"],
  errors: OPENAI_ERRORS,
  plain: async (q) => {
    const { data, request_id } = await completions(q).create(asked(q)).withResponse();
    if (!request_id) throw new Error("no request id");
    return data.choices[0].message.content;
  },
  stream: async (q) => {
    const pieces = [];
    const stream = completions(q).stream(asked(q));
    stream.on("content.delta", ({ delta }) => pieces.push(delta));
    await stream.finalChatCompletion();
    return pieces;
  },
  tools: ran,
  parallel_tools: ran,
  streamed_tools: (q) => ran(q, { stream: true }),
  json_schema: async (q) => {
    const response_format = zodResponseFormat(Weather, "weather");
    const answer = await completions(q).parse({ ...asked(q), response_format });
    return answer.choices[0].message.parsed;
  },
  usage: async (q) => {
    const stream = completions(q).stream({ ...asked(q), stream_options: { include_usage: true } });
    const usage = await stream.totalUsage();
    return [usage.prompt_tokens, usage.completion_tokens];
  },
  retry: async (q) => (await completions(q).create(asked(q))).choices[0].message.content,
  cancel: async (q) => {
    const stream = completions(q).stream(asked(q));
    for await (const chunk of stream) if (chunk.choices.length) break;
    stream.abort();
  },
});
