// openai-node asks numbered questions, some at once, and prints the call that it got for each.
import OpenAI from "openai";

const AT_ONCE = 20;
const { url, questions, streams, tools } = JSON.parse(process.argv[2]);
const client = new OpenAI({ baseURL: url, apiKey: "none", maxRetries: 0 });

async function ask(number) {
  const messages = [{ role: "user", content: `${number}` }];
  const question = { model: "gpt-4o", messages, tools };
  const completion = streams
    ? await client.chat.completions.stream(question).finalChatCompletion()
    : await client.chat.completions.create(question);
  const calls = completion.choices[0].message.tool_calls ?? [];
  if (calls.length !== 1) throw new Error(`question ${number}: ${calls.length} calls`);
  return [calls[0].function.name, calls[0].function.arguments];
}

const numbers = Array.from({ length: questions }, (_, number) => number);
const calls = [];
while (numbers.length) calls.push(...(await Promise.all(numbers.splice(0, AT_ONCE).map(ask))));
process.stdout.write(JSON.stringify(calls));
