"""The embedded engine: a small model and its adapters, answered on this machine's own processor.

    backend    the proxy's view: chats in, events out
    pool       which pipelines are in memory      weights   base and adapter merged into one file
    pipeline   one merged model, from outside     worker    the same from inside, in its own process
    wire       what these two tell each other     header    sizes of a model, from its file's head
    grammar    a constraint in the engine's terms ebnf      JSON Schema as a grammar

Import the modules, not this package: openvino_genai is heavy and optional, so only the worker's
process imports it, and nothing here imports anything.
"""
