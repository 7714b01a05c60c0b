"""OpenAI's Responses API, in terms of chats: whoever answers those answers it.

    request   a response's request → a chat's, or why there is none
    answer    a completion → a response
    events    the chunks of a streamed completion → the events of a streamed response

Source: OpenAI API reference, responses. Function tools, text and structured text are translated;
what has no counterpart in a chat (stored responses, built-in tools, …) is for a cloud.
"""
