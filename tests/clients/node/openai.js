// openai-node.
import OpenAI from "openai";
import { RESPONSE_FORMAT, TOOL, OPENAI_ERRORS, all, callsOf, main } from "./program.js";

export function openai(q) {
  return new OpenAI({
    baseURL: q.url,
    apiKey: q.key,
    maxRetries: q.retries,
    defaultHeaders: q.headers,
  });
}

/** The program of a client that is made by `make`. */
export function programOf(make) {
  const create = (q, more = {}) =>
    make(q).chat.completions.create({ model: q.model, messages: q.messages, ...more });
  const choices = async (q, more = {}) =>
    (await all(await create(q, { stream: true, ...more }))).flatMap((chunk) => chunk.choices);
  const plain = async (q) => (await create(q)).choices[0].message.content;
  const tools = async (q) => {
    const [choice] = (await create(q, { tools: [TOOL] })).choices;
    if (choice.finish_reason !== "tool_calls") throw new Error(choice.finish_reason);
    return callsOf(choice.message.tool_calls);
  };
  return {
    packages: ["openai"],
    errors: OPENAI_ERRORS,
    plain,
    stream: async (q) => (await choices(q)).map((choice) => choice.delta.content ?? ""),
    tools,
    parallel_tools: tools,
    streamed_tools: async (q) => {
      const seen = await choices(q, { tools: [TOOL] });
      if (seen.at(-1).finish_reason !== "tool_calls") throw new Error(seen.at(-1).finish_reason);
      return callsOf(seen.flatMap((choice) => choice.delta.tool_calls ?? []));
    },
    json_schema: async (q) => {
      const answer = await create(q, { response_format: RESPONSE_FORMAT });
      return JSON.parse(answer.choices[0].message.content);
    },
    usage: async (q) => {
      const options = { stream: true, stream_options: { include_usage: true } };
      const last = (await all(await create(q, options))).at(-1);
      if (last.choices.length) throw new Error("the usage chunk has choices");
      return [last.usage.prompt_tokens, last.usage.completion_tokens];
    },
    retry: plain,
    cancel: async (q) => {
      for await (const chunk of await create(q, { stream: true })) if (chunk.choices.length) break;
    },
  };
}

if (process.argv[1].endsWith("/openai.js")) await main(programOf(openai));
