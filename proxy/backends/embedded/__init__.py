"""The embedded engine: a small model and its adapters, answered on this machine's own processor.

    backend    the proxy's view: chats in, events out
    pool       which pipelines are in memory      files     their models, on disk
    pipeline   one of them, from outside          worker    the same from inside, in its own process
    wire       what these two tell each other     header    sizes of a model, from its file's head
    graph      base and adapters as one model     weights   both of them, read and checked
    grammar    a constraint in the engine's terms ebnf      JSON Schema as a grammar

Import the modules, not this package: openvino_genai is heavy and optional, so only processes
of their own import it, and nothing here imports anything.
"""
