// openai-node's Responses API.
import { zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { openai } from "./openai.js";
import { OPENAI_ERRORS, PARAMETERS, main } from "./program.js";

const Weather = z.object({ city: z.string(), celsius: z.number().int() });
const described = { name: "get_weather", description: "Weather of a city." };
const tools = [{ type: "function", ...described, parameters: PARAMETERS, strict: true }];

const responses = (q) => openai(q).responses;
const asked = (q) => ({ model: q.model, input: q.prompt });
const calls = (answer) =>
  answer.output
    .filter((item) => item.type === "function_call")
    .map((call) => [call.name, JSON.parse(call.arguments)]);
const plain = async (q) => (await responses(q).create(asked(q))).output_text;
const called = async (q) => calls(await responses(q).create({ ...asked(q), tools }));

await main({
  packages: ["openai", "zod"],
  errors: OPENAI_ERRORS,
  plain,
  stream: async (q) => {
    const pieces = [];
    const stream = responses(q).stream(asked(q));
    stream.on("response.output_text.delta", ({ delta }) => pieces.push(delta));
    await stream.finalResponse();
    return pieces;
  },
  tools: called,
  parallel_tools: called,
  streamed_tools: async (q) => calls(await responses(q).stream({ ...asked(q), tools }).finalResponse()),
  json_schema: async (q) => {
    const text = { format: zodTextFormat(Weather, "weather") };
    return (await responses(q).parse({ ...asked(q), text })).output_parsed;
  },
  usage: async (q) => {
    const { usage } = await responses(q).stream(asked(q)).finalResponse();
    return [usage.input_tokens, usage.output_tokens];
  },
  retry: plain,
  cancel: async (q) => {
    const stream = await responses(q).create({ ...asked(q), stream: true });
    for await (const event of stream) if (event.type === "response.output_text.delta") break;
  },
});
